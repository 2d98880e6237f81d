"""The only way to open a file of a model folder, packed or source.

A model folder is a stranger's, and a name in it need not be a file: a pipe hangs who opens it, a device never ends, a
link shows what lies elsewhere. Whatever is opened here is a regular file of the folder and no longer than such a file
can be; JSON has one meaning. Where the folder carries checksums, what is read is what was written.

The Hugging Face cache keeps a model's files in blobs/ and gives each revision links to them; these links are followed:

    models--owner--name/snapshots/<revision>/config.json -> ../../blobs/<hash>
"""

from __future__ import annotations

import functools
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from tercet.artifact import strict_json
from tercet.artifact.header import NO_FILE, POINTER
from tercet.artifact.sums import SUMS, parsed
from tercet.errors import FormatError

__all__ = ["ModelFolder"]

MiB = 1 << 20
# The largest known: tokenizer.json 34 MB (Gemma 3), tokenizer_config.json 1.2 MB, an index of shards 9 MB.
LIMITS = {"tokenizer.json": 64 * MiB, "model.safetensors.index.json": 16 * MiB, "chat_template.jinja": 1 * MiB}
LIMIT = strict_json.MAX_JSON
CHANGED = f"not what {SUMS} says was written: damaged, or changed; get the model again, or delete {SUMS}"
HINT = "get the model again, or copy the file from the original"


class ModelFolder:
    """A folder whose files are opened with care.

    Attributes:
        path: where it is, as the user wrote it.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises FormatError where there is no such folder."""
        self.path = Path(path)
        try:
            self._home = Path(os.path.realpath(self.path))
            kind = self._home.stat().st_mode
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            reason = "no such folder" if isinstance(error, FileNotFoundError) else _reason(error)
            raise FormatError(f"{str(path)[:400]!r}: {reason}; is the path right?") from None
        if not stat.S_ISDIR(kind):
            raise FormatError(f"{path}: a file, not a model folder; name the folder that it lies in")

    def __truediv__(self, name: str) -> Path:
        """The path of a file, for messages."""
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether something is there by this name: not necessarily a file, but who opens it is told so."""
        return os.path.lexists(self.path / name)

    def open(self, name: str) -> int:
        """A read-only descriptor of a regular file. Raises FormatError where it is none, or lies elsewhere."""
        place = self._inside(name)
        try:
            # Without O_NONBLOCK a pipe hangs here; O_NOFOLLOW: a link put there since it was resolved.
            descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise FormatError(f"{self / name}: {_reason(error)}; {HINT}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FormatError(f"{self / name}: not a regular file; {HINT}")
        return descriptor

    def file(self, name: str) -> Path:
        """The path of a file that was found regular and inside, for a library that opens it itself."""
        os.close(self.open(name))
        return self / name

    def read(self, name: str) -> bytes:
        """A small file. Raises FormatError as `open`, and where it is longer than such a file can be."""
        limit = LIMITS.get(name, LIMIT)
        with os.fdopen(self.open(name), "rb") as file:
            raw = self._read(file, name, limit + 1)
        if len(raw) > limit:
            raise FormatError(f"{self / name}: more than {limit / MiB:g} MiB, no such file is; {HINT}")
        if raw.startswith(POINTER):
            raise FormatError(f"{self / name}: {NO_FILE}")
        if name != SUMS and name in self.sums and hashlib.sha256(raw).hexdigest() != self.sums[name]:
            raise FormatError(f"{self / name}: {CHANGED}")
        return raw

    @functools.cached_property
    def sums(self) -> dict[str, str]:
        """SHA-256 by file name, where the folder carries them (`tercet.artifact.sums`). Raises FormatError."""
        return parsed(self.read(SUMS), str(self / SUMS)) if self.has(SUMS) else {}

    def verify(self) -> None:
        """Reads every file that has a checksum. Raises FormatError where one is not what was written."""
        for name, expected in self.sums.items():
            if self.sha256(name) != expected:
                raise FormatError(f"{self / name}: {CHANGED}")

    def text(self, name: str) -> str:
        """A small file of UTF-8. Raises FormatError as `read`, and where it is none."""
        try:
            return self.read(name).decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{self / name}: not Unicode: {error.reason}; {HINT}") from None

    def json(self, name: str) -> dict[str, Any]:
        """The object that a small file holds. Raises FormatError as `read`, and for anything but strict JSON."""
        value = strict_json.parse(self.read(name), str(self / name), LIMITS.get(name, LIMIT))
        if not isinstance(value, dict):
            raise FormatError(f"{self / name}: not a JSON object; {HINT}")
        return value

    def json_if_there(self, name: str) -> dict[str, Any]:
        """As `json`; empty where the folder has no such file."""
        return self.json(name) if self.has(name) else {}

    def sha256(self, name: str) -> str:
        """Hexadecimal SHA-256 of a file of any length. Raises FormatError as `open`."""
        digest = hashlib.sha256()
        with os.fdopen(self.open(name), "rb") as file:
            while block := self._read(file, name, MiB):
                digest.update(block)
        return digest.hexdigest()

    def _read(self, file: Any, name: str, most: int) -> bytes:
        try:
            raw: bytes = file.read(most)
        except OSError as error:
            raise FormatError(f"{self / name}: cannot be read: {error.strerror}") from None
        return raw

    def _inside(self, name: str) -> Path:
        """Where the file really is. Raises FormatError where that is outside, or `name` is no plain name."""
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise FormatError(f"{self.path}: {name[:80]!r} is not a plain file name; do not trust this folder")
        try:
            place = Path(os.path.realpath(self.path / name, strict=True))
        except OSError as error:  # nothing there, or a link to itself
            raise FormatError(f"{self / name}: {_reason(error)}; {HINT}") from None
        homes = [self._home]
        if self._home.parent.name == "snapshots":
            homes.append(self._home.parents[1] / "blobs")
        if not any(place.is_relative_to(home) for home in homes):
            raise FormatError(f"{self / name}: a link that leads out of the folder; copy the file itself into it")
        return place


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "this cannot be a path"
