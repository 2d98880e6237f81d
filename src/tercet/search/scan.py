"""The pictures of a folder, by name.

Links to folders are not followed, nor what begins with a dot; a link to a file counts as that file. A folder that
cannot be listed, and a file whose status cannot be told, are neither there nor gone: they are named, so that nobody
takes what lies there for deleted.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tercet.errors import FormatError
from tercet.runtime.pictures.files import SUFFIXES, UNREAD

__all__ = ["Found", "scan"]

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # since the folder was listed, or a link that leads nowhere


@dataclass(frozen=True)
class Found:
    """What is in a folder; paths are relative to it, "/" between parts.

    Attributes:
        files: those that look like pictures by name, in the order of their folders.
        unread: folders and files that could not be looked at, and why.
        left_out: how many pictures there are of formats that are not read, by ending.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)


def scan(folder: Path, leave_out: Path | None = None) -> Found:
    """Looks for pictures; `leave_out` is a folder in it. Raises FormatError where `folder` itself cannot be listed."""
    found = Found()

    def note(error: OSError, path: Path) -> None:
        if path == folder:
            raise FormatError(f"{folder}: cannot be listed: {error.strerror}; are you allowed to read it?") from None
        if error.errno not in GONE:
            found.unread[path.relative_to(folder).as_posix()] = f"cannot be read: {error.strerror}"

    own = leave_out.resolve() if leave_out is not None else None
    for parent, folders, files in os.walk(folder, onerror=lambda error: note(error, Path(error.filename or folder))):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (here / name).resolve() != own)
        for name in sorted(files):
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if name.startswith(".") or ending not in SUFFIXES:
                found.left_out.update([ending] if ending in UNREAD and not name.startswith(".") else [])
                continue
            try:
                found.files[(here / name).relative_to(folder).as_posix()] = (here / name).stat()
            except OSError as error:
                note(error, here / name)
    return found
