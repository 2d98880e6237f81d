"""Brings an index up to date with its folder: what is new or changed is embedded, what is gone is taken out.

A file is the same as before if size and modification time are; where only the time differs, its content decides
(SHA-256). What a decoder refused stays refused until the file changes. What could not be read (no permission, an I/O
error, too many open files, no memory left) is reported, remembered nowhere and tried again next time; what lies in a
folder that cannot be listed stays as it is. Every CHECKPOINT pictures, or seconds, a segment goes
to disk; Ctrl-C, a crash or a full disk loses at most what came after it, and the same command goes on from there.

File names that are not UTF-8 are kept as Python spells them (surrogate escapes).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import open_regular
from tercet.errors import FormatError, ModelError, StorageError
from tercet.runtime.pictures.embedder import BATCH, Embedder, normalized
from tercet.runtime.pictures.files import MAX_FILE, pillow
from tercet.search.scan import Found, scan
from tercet.search.store import ABOUT, Entry, Index

__all__ = ["Progress", "Report", "build"]

CHECKPOINT = 2048  # pictures in a segment
SECONDS = 30.0  # or as many as came in so long
SEGMENTS = 8  # more are made one

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


@dataclass
class Report:
    """What `build` did.

    Attributes:
        pictures: in the index now.
        added, changed, removed, kept: files, by what happened to them; `added` and `changed` are in the index.
        refused: of all files in the folder, path and reason; and of folders that could not be listed.
        left_out: how many pictures there are of formats that are not read, by ending.
        seconds: wall clock.
    """

    folder: str
    pictures: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "refused": [{"path": path, "reason": reason} for path, reason in self.refused]}


def build(
    folder: str | Path,
    clip: Embedder,
    place: str | Path,
    *,
    batch: int = BATCH,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Makes the index of a folder, or brings it up to date.

    Raises FormatError (no such folder, or it cannot be listed; a damaged index), ModelError (an index of another model
    or folder), StorageError, TercetError where Pillow is missing.
    """
    started = time.monotonic()
    pillow()  # what is missing here is no fault of the pictures
    folder = Path(folder)
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; give the folder with the pictures")
    report = Report(str(folder))
    place, home = Path(place), str(folder.resolve())
    if not (place / ABOUT).is_file():
        Index.create(place, model=clip.name, fingerprint=clip.fingerprint, dim=clip.encoder.dim, folder=home)
    with _alone(place):
        index = _opened(place, clip, home)
        _update(index, folder, clip, report, batch, workers, progress)
    report.seconds = time.monotonic() - started
    return report


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Two writers would overwrite each other's segments. The kernel lets go of the lock when the process ends."""
    descriptor = open_regular(place / ABOUT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StorageError(f"cannot write {place}: another tercet index is at work there; wait for it") from None
    finally:
        os.close(descriptor)


def _update(
    index: Index,
    folder: Path,
    clip: Embedder,
    report: Report,
    batch: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    place = index.place
    found = scan(folder, place)
    report.refused, report.left_out = list(found.unread.items()), dict(found.left_out)
    waiting = _changed(index, folder, found.files, report)
    missing = [path for path in index.entries if path not in found.files]
    gone = [path for path in missing if not _out_of_sight(path, found)]
    report.removed = len(gone)
    report.kept += len(missing) - len(gone)
    _embed(index, folder, clip, waiting, gone, report, batch, workers, progress)
    if len(index.segments) > SEGMENTS:
        index.compact()
    report.pictures = len(index.vectors)
    lasting = {path: entry.refused for path, entry in index.entries.items() if entry.refused}
    report.refused = sorted({**lasting, **dict(report.refused)}.items())


def _out_of_sight(path: str, found: Found) -> bool:
    """Whether nobody knows if the file is still there."""
    return path in found.unread or any(str(parent) in found.unread for parent in PurePosixPath(path).parents)


def _opened(place: Path, clip: Embedder, home: str) -> Index:
    index = Index.open(place)
    if index.about["fingerprint"] != clip.fingerprint:
        raise ModelError(f"{place}: made by another model ({index.about['model']}); give that one, or another -o")
    if index.about["folder"] != home:
        raise ModelError(f"{place}: the index of another folder ({index.about['folder']}); give another -o")
    return index


def _changed(index: Index, folder: Path, found: dict[str, os.stat_result], report: Report) -> list[str]:
    """Paths to embed. Files whose time alone differs get a new entry with the vector they have."""
    waiting: list[str] = []
    touched: dict[str, Entry] = {}
    for path, status in found.items():
        entry = index.entries.get(path)
        if entry is None or entry.size != status.st_size:
            waiting.append(path)
        elif entry.mtime_ns == status.st_mtime_ns:
            report.kept += 1
        elif _sha256(folder / path) == entry.sha256:
            touched[path] = replace(entry, mtime_ns=status.st_mtime_ns)
            report.kept += 1
        else:
            waiting.append(path)
    known = {path: index.vectors[path].astype(np.float32) for path in touched if path in index.vectors}
    index.add(touched.values(), known, ())
    return waiting


def _embed(
    index: Index,
    folder: Path,
    clip: Embedder,
    waiting: list[str],
    gone: list[str],
    report: Report,
    batch: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Embeds `waiting`, a segment now and then, and one at the end however it ends."""
    known = set(index.entries)
    facts: dict[str, Entry] = {}
    entries: list[Entry] = []
    vectors: dict[str, NDArray[np.float32]] = {}
    done, saved = 0, time.monotonic()

    def read(path: str) -> bytes:
        content, facts[path] = _read(folder, path)
        return content

    def save() -> None:
        nonlocal saved
        index.add(entries, vectors, gone)
        for written in (entries, vectors, gone):
            written.clear()
        saved = time.monotonic()

    batches = clip.pictures(waiting, read, batch=batch, workers=workers)
    try:
        for made in batches:
            for path, vector in zip(made.sources, normalized(made.vectors), strict=True):
                vectors[path] = vector  # first: Ctrl-C may come between the two
                entries.append(facts.pop(path))
                report.changed += path in known
                report.added += path not in known
            for path, message in made.refused:
                entry, reason = facts.pop(path, None), message.removeprefix(f"{folder / path}: ")
                if entry is not None and path not in made.unread:
                    entries.append(replace(entry, refused=reason))
                    continue
                report.refused.append((path, reason))
                if path in known:
                    gone.append(path)  # of content that is no longer there
            done += len(made.sources) + len(made.refused)
            if progress is not None:
                progress("pictures", done, len(waiting))
            if len(entries) >= CHECKPOINT or time.monotonic() - saved > SECONDS:
                save()
    finally:
        batches.close()  # type: ignore[attr-defined]
        save()


def _read(folder: Path, path: str) -> tuple[bytes, Entry]:
    """A file's content and what is remembered of it, both of the same moment."""
    with os.fdopen(open_regular(folder / path), "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > MAX_FILE:
            raise FormatError(f"{folder / path}: {status.st_size >> 20} MB; at most {MAX_FILE >> 20} are read")
        content = file.read(MAX_FILE + 1)
    return content, Entry(path, status.st_size, status.st_mtime_ns, hashlib.sha256(content).hexdigest())


def _sha256(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (FormatError, OSError):
        return None
    return digest.hexdigest()
