"""Webdataset tars: files of the same name up to the first dot are one sample. Read as a stream, never unpacked.

    000001.jpg 000001.cls              classification: the number of the class
    000002.webp 000002.txt             retrieval: a caption a line; or .json with "caption" or "captions"
    000003.png 000003.npy              multi-label: a vector of zeros and ones

Beside the tars, or a folder above: classnames.txt, zeroshot_classification_templates.txt, as CLIP-benchmark's sets on
the Hugging Face hub have them. Links, devices and folders in a tar are passed over, sizes are capped, and what a name
says of a path is never used as one.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from tercet.errors import FormatError
from tercet.evaluate.datasets.sample import Sample
from tercet.runtime.picture_files import MAX_FILE, SUFFIXES

__all__ = ["read_tars", "tars_in"]

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
            with tarfile.open(path, "r|") as tar:
                yield from _samples(_members(tar, path), path)
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{path}: no tar, or cut off: {str(error)[:120]}; get it again") from None


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, str, bytes]]:
    """(sample, extension, content) of the files that matter."""
    for member in tar:
        found = NAME.match(member.name)
        if not member.isreg() or found is None:
            continue
        extension = found[2].lower()
        limit = MAX_FILE if extension in PICTURES else MAX_TEXT
        if extension not in (*PICTURES, "cls", "txt", "json", "npy"):
            continue
        if member.size > limit:
            raise FormatError(f"{path}: {member.name[:80]!r} has {member.size} bytes; at most {limit} are read")
        file: IO[bytes] | None = tar.extractfile(member)
        if file is not None:
            yield found[1], extension, file.read(limit)
        tar.members = []  # type: ignore[attr-defined]  # else the list grows with the tar


def _samples(members: Iterator[tuple[str, str, bytes]], path: Path) -> Iterator[Sample]:
    name: str | None = None
    parts: dict[str, bytes] = {}
    for sample, extension, content in members:
        if name is not None and sample != name:
            yield from _made(name, parts, path)
            parts = {}
        name = sample
        parts[extension] = content
    if name is not None:
        yield from _made(name, parts, path)


def _made(name: str, parts: dict[str, bytes], path: Path) -> Iterator[Sample]:
    picture = next((parts[extension] for extension in PICTURES if extension in parts), None)
    if picture is None:
        return
    where = f"{path}: {name[:80]!r}"
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()
    try:
        if "cls" in parts:
            labels = (int(parts["cls"].decode("ascii").strip()),)
        elif "npy" in parts:
            labels = _present(parts["npy"])
        elif "txt" in parts:
            captions = tuple(line.strip() for line in parts["txt"].decode().splitlines() if line.strip())
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
