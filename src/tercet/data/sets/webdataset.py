"""Webdataset tars: files of the same name up to the first dot are one sample. Never unpacked.

    000001.jpg 000001.cls              classification: the number of the class
    000002.webp 000002.txt             retrieval: a caption a line; or .json with "caption" or "captions"
    000003.png 000003.npy              multi-label: a vector of zeros and ones

Beside the tars, or a folder above: classnames.txt, zeroshot_classification_templates.txt, as CLIP-benchmark's sets on
the Hugging Face hub have them. A sample says where in the tar its picture lies, which is read when it is opened: a list
of all samples takes no more memory than their names and labels. Links, devices, folders and sparse files in a tar are
passed over, sizes are capped, and what a name says of a path is never used as one.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from tercet.artifact import open_regular
from tercet.data.sets.sample import Sample
from tercet.errors import FormatError
from tercet.runtime.pictures.files import MAX_FILE, SUFFIXES, UNREAD, left_out
from tercet.runtime.section import Section
from tercet.shown import printable

__all__ = ["read_tars", "tars_in"]

log = logging.getLogger("tercet.data")

MAX_TEXT = 1 << 20
PICTURES = tuple(suffix[1:] for suffix in SUFFIXES)
NAME = re.compile(r"^((?:.*/)?[^./][^.]*)\.([^/]+)$", re.DOTALL)


def tars_in(folder: Path) -> list[Path]:
    """The tars of a folder, in the order of their numbers."""
    return sorted(folder.glob("*.tar"), key=lambda path: (len(path.stem), path.stem))


def read_tars(paths: Sequence[Path]) -> Iterator[Sample]:
    """All samples that have a picture. Raises FormatError where a tar is damaged or a sample says nothing of it."""
    for path in paths:
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                headers: Any = _Headers(file)
                with tarfile.open(fileobj=headers, mode="r:") as tar:
                    yield from _samples(_members(tar, path), path)
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{path}: no tar, or cut off: {str(error)[:120]}; get it again") from None


class _Headers:
    """What tarfile reads of an open file: headers and small files, whatever size the tar claims for a header."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_TEXT:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, str, bytes | Section]]:
    """(sample, extension, content or, of pictures, their place) of the files that matter."""
    last = -1
    passed: Counter[str] = Counter()
    for member in tar:
        if member.offset <= last:  # a size below zero leads back, and round for ever
            raise tarfile.ReadError("a file in it has no size")
        last = member.offset
        found = NAME.match(member.name)
        tar.members = []  # type: ignore[attr-defined]  # else the list grows with the tar
        if not member.isreg() or member.issparse() or found is None:
            continue
        extension = found[2].lower()
        limit = MAX_FILE if extension in PICTURES else MAX_TEXT
        if extension not in (*PICTURES, "cls", "txt", "json", "npy"):
            passed[extension] += 1
            continue
        if member.size > limit:
            raise FormatError(f"{path}: {member.name[:80]!r} has {member.size} bytes; at most {limit} are read")
        section = Section(path, member.offset_data, member.size)
        file: IO[bytes] | None = None if extension in PICTURES else tar.extractfile(member)
        yield found[1], extension, section if file is None else file.read(member.size)
    _say(path, passed)


def _say(path: Path, passed: Mapping[str, int]) -> None:
    """Warns of pictures that are passed over: for their format, or a second dot, which makes them parts of others."""
    formats = {f".{ending}": count for ending, count in passed.items() if f".{ending}" in UNREAD}
    if formats:
        log.warning("%s: %s", path, left_out(formats))
    dots = {ending: count for ending, count in passed.items() if ending.endswith(tuple(f".{p}" for p in PICTURES))}
    if dots:
        log.warning(
            "%s: %d pictures left out whose names have two dots, such as %s; a sample's name ends at its first dot",
            path, sum(dots.values()), printable(f"*.{min(dots)}"[:80]),
        )  # fmt: skip


def _samples(members: Iterator[tuple[str, str, bytes | Section]], path: Path) -> Iterator[Sample]:
    name: str | None = None
    parts: dict[str, bytes | Section] = {}
    for sample, extension, content in members:
        if name is not None and sample != name:
            yield from _made(name, parts, path)
            parts = {}
        name = sample
        parts[extension] = content
    if name is not None:
        yield from _made(name, parts, path)


def _made(name: str, found: dict[str, bytes | Section], path: Path) -> Iterator[Sample]:
    picture = next((found[extension] for extension in PICTURES if extension in found), None)
    if picture is None:
        return
    parts = {extension: content for extension, content in found.items() if isinstance(content, bytes)}
    where = f"{path}: {name[:80]!r}"
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    try:
        if "cls" in parts:
            labels = (int(parts["cls"].decode("ascii").strip()),)
        elif "npy" in parts:
            labels = _present(parts["npy"])
        elif "txt" in parts:
            captions = tuple(line.strip() for line in parts["txt"].decode("utf-8-sig").splitlines() if line.strip())
        elif "json" in parts:
            captions = _from_json(parts["json"])
    except (ValueError, EOFError, RecursionError) as error:
        raise FormatError(f"{where}: its label or caption cannot be read: {str(error)[:100]}") from None
    if not labels and not captions and "npy" not in parts:
        raise FormatError(f"{where}: neither .cls nor .txt beside the picture")
    if any(not 0 <= label < 1 << 31 for label in labels):
        raise FormatError(f"{where}: class {labels[0]} is no class")
    yield Sample(name, picture, labels, captions)


def _present(content: bytes) -> tuple[int, ...]:
    """Numbers of the classes whose entry is not 0, out of an .npy file; or the label itself where it is one number."""
    file = io.BytesIO(content)
    old = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "biuf" or len(shape) > 1:
        raise ValueError("no vector of numbers")
    values = np.frombuffer(content, dtype, math.prod(shape), file.tell()).reshape(shape)
    if values.ndim == 0:
        return (int(values),)
    return tuple(int(index) for index in np.flatnonzero(values > 0))


def _from_json(content: bytes) -> tuple[str, ...]:
    value = json.loads(content)
    said: Any = value.get("captions", value.get("caption")) if isinstance(value, dict) else None
    texts: list[Any] = said if isinstance(said, list) else [said]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("no caption in the .json")
    return tuple(text.strip() for text in texts if text.strip())
