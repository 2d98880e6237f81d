"""An index on disk: a folder of segments, each written in one step and never changed.

    index.json                          what it is: model fingerprint, dimension, folder
    segment-00000001.safetensors        vectors f16[n, dim] of length 1, entries u8[bytes]: JSON, sha256 u8[32] of both

Reading it is replaying its segments in order: an entry takes the place of an earlier one of the same path; a path in
`gone` takes it out; a segment that is `whole` starts from nothing. So a process that dies, however it dies, loses what
was not yet in a segment, and nothing else. A whole segment is written when many have gathered; what came before it is
then removed, and would change nothing if it stayed. Entries of more than MAX_ENTRIES go into several segments, of which
the first is the whole one and is written last: until then the others repeat what is known.

float16 costs a ten-thousandth of a cosine. Files are read without trust: as safetensors, by Tercet's own checks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.artifact import open_regular, strict_json
from tercet.artifact.header import lay_out, parse_header
from tercet.errors import FormatError, StorageError

__all__ = ["ABOUT", "Entry", "Index"]

ABOUT = "index.json"
VERSION = 2
MAX_ENTRIES = 1 << 30  # bytes of JSON in a segment
FRAME = 64  # of them around the entries


@dataclass(frozen=True)
class Entry:
    """A file of the folder.

    Attributes:
        path: relative to the folder, "/" between parts.
        size, mtime_ns: as the file system tells.
        sha256: hexadecimal, of the content.
        refused: why it has no vector; None where it has one.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str
    refused: str | None = None


@dataclass
class Index:
    """An opened index.

    Attributes:
        place: its folder.
        about: model (a name), fingerprint, dim, folder (absolute path of the pictures).
        entries: by path.
        vectors: float16[dim] by path, for those not refused.
        segments: names of the files they came from.
    """

    place: Path
    about: dict[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float16]] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)

    @classmethod
    def create(cls, place: str | Path, *, model: str, fingerprint: str, dim: int, folder: str) -> Index:
        """A new index on disk. Raises StorageError where something else is there."""
        place = Path(place)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise StorageError(f"cannot write {place}: something else is there; choose another name")
        about = {"model": model, "fingerprint": fingerprint, "dim": dim, "folder": folder}
        text = json.dumps({"format": "tercet-index", "version": VERSION, **about}, indent=1, ensure_ascii=True)
        fsio.atomic_file(place / ABOUT, text.encode() + b"\n")
        return cls(place, about)

    @classmethod
    def open(cls, place: str | Path) -> Index:
        """Reads an index. Raises FormatError where it is missing, damaged or none."""
        place = Path(place)
        about = _about(place)
        index = cls(place, about)
        for path in sorted(place.glob("segment-" + "[0-9]" * 8 + ".safetensors")):
            index._replay(path)
        return index

    def matrix(self) -> tuple[list[str], NDArray[np.float32]]:
        """Paths in order, and float32[n, dim]."""
        paths = sorted(self.vectors)
        if not paths:
            return [], np.zeros((0, self.about["dim"]), np.float32)
        return paths, np.stack([self.vectors[path] for path in paths]).astype(np.float32)

    def add(self, entries: Iterable[Entry], vectors: Mapping[str, NDArray[np.float32]], gone: Iterable[str]) -> None:
        """Appends a segment. `vectors` are of length 1, for each entry that is not refused. Raises StorageError."""
        rows = {path: np.asarray(vector, np.float16) for path, vector in vectors.items()}
        chosen, left = list(entries), sorted(gone)
        if not chosen and not left:
            return
        for some, fewer in _parts(chosen, left):
            (name,) = self._names(1)
            self._write(name, some, fewer, rows, whole=False)
            self.segments.append(name)
            self._apply(some, rows, fewer)

    def compact(self) -> None:
        """One segment, or as few as it takes, in place of many. Raises StorageError, FormatError."""
        old = self.segments
        if len(old) < 2:
            return
        parts = _parts(list(self.entries.values()), [])
        made = self._names(len(parts))
        for number in reversed(range(len(parts))):
            self._write(made[number], *parts[number], self.vectors, whole=number == 0)
        try:
            for name in made:  # before anything is removed
                _segment(self.place / name, self.about["dim"])
        except FormatError:
            for name in made:
                (self.place / name).unlink(missing_ok=True)
            raise
        self.segments = made
        for name in old:
            (self.place / name).unlink(missing_ok=True)

    def _names(self, count: int) -> list[str]:
        """Of the segments that come next."""
        last = int(self.segments[-1][8:16]) if self.segments else 0
        return [f"segment-{last + 1 + number:08d}.safetensors" for number in range(count)]

    def _apply(self, entries: list[Entry], rows: Mapping[str, NDArray[np.float16]], gone: list[str]) -> None:
        for path in gone:
            self.entries.pop(path, None)
            self.vectors.pop(path, None)
        for entry in entries:
            self.entries[entry.path] = entry
            self.vectors.pop(entry.path, None)
            if entry.refused is None:
                self.vectors[entry.path] = rows[entry.path]

    def _write(
        self, name: str, entries: list[Entry], gone: list[str], rows: Mapping[str, NDArray[np.float16]], *, whole: bool
    ) -> None:
        listed = [entry for entry in entries if entry.refused is None]
        matrix = np.stack([rows[entry.path] for entry in listed]) if listed else np.zeros((0, self.about["dim"]), "f2")
        written = {"whole": whole, "entries": [asdict(entry) for entry in entries], "gone": gone}
        text = np.frombuffer(json.dumps(written, ensure_ascii=True).encode(), np.uint8)
        arrays: dict[str, NDArray[Any]] = {"entries": text}
        if len(matrix):
            arrays["vectors"] = np.ascontiguousarray(matrix)
        arrays["sha256"] = _checksum(*arrays.values())
        header, order = lay_out(arrays)
        fsio.atomic_file(self.place / name, (header, *(arrays[key] for key in order)))

    def _replay(self, path: Path) -> None:
        written, matrix = _segment(path, self.about["dim"])
        try:
            entries = [Entry(**item) for item in written["entries"]]
            gone = [str(item) for item in written["gone"]]
            if not all(_sound(entry) for entry in entries):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise FormatError(f"{path}: entries of an unknown form; make the index again") from None
        listed = [entry.path for entry in entries if entry.refused is None]
        if len(listed) != len(matrix):
            raise FormatError(f"{path}: {len(matrix)} vectors for {len(listed)} pictures; make the index again")
        if written.get("whole") is True:
            self.entries, self.vectors, self.segments = {}, {}, []
        self._apply(entries, dict(zip(listed, matrix, strict=True)), gone)
        self.segments.append(path.name)


def _parts(entries: list[Entry], gone: list[str]) -> list[tuple[list[Entry], list[str]]]:
    """Both in pieces, in order, what is gone first, each of at most MAX_ENTRIES bytes as JSON; one at least."""
    parts: list[tuple[list[Entry], list[str]]] = [([], [])]
    room = MAX_ENTRIES - FRAME

    def fit(item: Any) -> tuple[list[Entry], list[str]]:
        nonlocal room
        size = len(json.dumps(item, ensure_ascii=True)) + 2  # a comma and a space
        if size > room:
            parts.append(([], []))
            room = MAX_ENTRIES - FRAME
        room -= size
        return parts[-1]

    for path in gone:
        fit(path)[1].append(path)
    for entry in entries:
        fit(asdict(entry))[0].append(entry)
    return parts


def _about(place: Path) -> dict[str, Any]:
    path = place / ABOUT
    if not path.is_file():
        raise FormatError(f"{place}: no index; make one with: tercet index FOLDER -m MODEL -o {place}")
    about = strict_json.parse(_bytes(path, strict_json.MAX_JSON), str(path))
    kinds = {"model": str, "fingerprint": str, "dim": int, "folder": str}
    if not isinstance(about, dict) or about.get("format") != "tercet-index" or about.get("version") != VERSION:
        raise FormatError(f"{path}: no index of a version this Tercet reads; make it again")
    if not all(type(about.get(key)) is kind for key, kind in kinds.items()) or not 0 < about["dim"] < 1 << 20:
        raise FormatError(f"{path}: its values are not those of an index; make it again")
    return {key: about[key] for key in kinds}


def _bytes(path: Path, limit: int) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(limit + 1)


def _segment(path: Path, dim: int) -> tuple[dict[str, Any], NDArray[np.float16]]:
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        tensors = parse_header(descriptor, str(path))
        text, vectors = tensors.get("entries"), tensors.get("vectors")
        if text is None or text.dtype != "U8" or text.end - text.start > MAX_ENTRIES:
            raise FormatError(f"{path}: no list of entries; make the index again")
        file.seek(text.start)
        listed, stored = file.read(text.end - text.start), b""
        try:
            written = json.loads(listed)
        except (ValueError, RecursionError):
            raise FormatError(f"{path}: its list of entries is no JSON; make the index again") from None
        if not isinstance(written, dict):
            raise FormatError(f"{path}: its list of entries is no JSON object; make the index again")
        if (digest := tensors.get("sha256")) is not None and digest.end - digest.start == 32:
            file.seek(digest.start)
            stored = file.read(32)
        if vectors is None:
            _check(path, stored, listed)
            return written, np.zeros((0, dim), np.float16)
        if vectors.dtype != "F16" or len(vectors.shape) != 2 or vectors.shape[1] != dim:
            raise FormatError(f"{path}: vectors are not f16[n, {dim}]; make the index again")
        file.seek(vectors.start)
        content = file.read(vectors.end - vectors.start)
    _check(path, stored, listed, content)
    matrix = np.frombuffer(content, np.float16).reshape(vectors.shape)
    if not np.isfinite(matrix).all():
        raise FormatError(f"{path}: vectors that are not finite; make the index again")
    return written, matrix


def _checksum(*parts: Any) -> NDArray[np.uint8]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return np.frombuffer(digest.digest(), np.uint8)


def _check(path: Path, stored: bytes, *parts: bytes) -> None:
    """A changed entry could keep a picture out of the index for good, without a word."""
    if stored != _checksum(*parts).tobytes():
        raise FormatError(f"{path}: damaged, its checksum differs; make the index again")


def _sound(entry: Entry) -> bool:
    texts = (entry.path, entry.sha256, entry.refused or "")
    if not all(isinstance(text, str) for text in texts):
        return False
    inside = not entry.path.startswith("/") and ".." not in entry.path.split("/") and "\0" not in entry.path
    return inside and type(entry.size) is int and type(entry.mtime_ns) is int
