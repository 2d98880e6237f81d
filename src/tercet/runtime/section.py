"""A file that lies inside another, such as a member of a tar: read where it is, when it is read."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["Section", "Window"]


@dataclass(frozen=True)
class Section:
    """`size` bytes from `offset` on of the file `path`."""

    path: Path
    offset: int
    size: int


class Window(io.RawIOBase):
    """A section of an open file as a file of its own, which ends where the section does."""

    def __init__(self, file: IO[Any], section: Section) -> None:
        self._file, self._section, self._at = file, section, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._section.size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning of the file")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(self._section.size - self._at, 0)]
        read = os.preadv(self._file.fileno(), [wanted], self._section.offset + self._at) if wanted else 0
        self._at += read
        return read
