"""Safetensors files of unknown origin: checked before anything else opens them, then read without torch.

The header is at most 100 MB of JSON that fits the file, with no key twice; each tensor has a known dtype, a shape whose
bytes are exactly those of its range, and the ranges cover the data without hole or overlap. The same rules as the
format's own, enforced here because what comes next (transformers) reports damage in many different ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError

__all__ = ["Tensors", "header"]

MAX_HEADER = 100_000_000
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
DTYPES |= {"I8": "i1", "U8": "u1", "BOOL": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8"}
FLOATS = ("F64", "F32", "F16", "BF16")


def header(path: Path) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """{tensor name: (dtype, shape, first byte, end byte)}, absolute. Raises FormatError."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise FormatError(f"{path}: the safetensors header does not fit the file; get the file again")
            text = file.read(length)
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(entries, dict):
            raise ValueError("it is no object")
        entries.pop("__metadata__", None)
        found = {name: _entry(entry) for name, entry in entries.items()}
    except (ValueError, RecursionError) as error:  # includes UnicodeDecodeError and JSONDecodeError
        raise FormatError(f"{path}: bad safetensors header: {str(error)[:200]}; get the file again") from None
    end = 0
    for name, (_, _, first, last) in sorted(found.items(), key=lambda item: item[1][2:]):
        if first != end:
            raise FormatError(f"{path}: tensor {name[:80]!r} leaves a hole or overlaps another; the file is damaged")
        end = last
    if 8 + length + end != size:
        raise FormatError(f"{path}: {size} bytes long, its header says {8 + length + end}; get the file again")
    return {name: (dtype, shape, 8 + length + a, 8 + length + b) for name, (dtype, shape, a, b) in found.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key appears twice")
    return made


def _entry(entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("an entry is not {dtype, shape, data_offsets}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"unknown dtype {str(dtype)[:40]!r}")
    for numbers, limit in ((shape, 8), (offsets, 2)):
        if not isinstance(numbers, list) or len(numbers) > limit or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a shape or offset is no list of a few integers >= 0")
    count = np.dtype(DTYPES[dtype]).itemsize
    for dim in shape:
        count *= dim
    if len(offsets) != 2 or offsets[1] - offsets[0] != count:
        raise ValueError(f"shape {shape} of {dtype} does not have the bytes of its range {offsets}")
    return dtype, tuple(shape), offsets[0], offsets[1]


class Tensors(Mapping[str, NDArray[np.float32]]):
    """The float tensors of one or more safetensors files by name; each is read, as float32, when asked for.

    F32 tensors are views of the mapped file (read-only); the others are converted copies. Values are not checked.
    """

    def __init__(self, files: list[Path]) -> None:
        self._where: dict[str, tuple[Path, str, tuple[int, ...], int, int]] = {}
        for path in files:
            for name, entry in header(path).items():
                if name in self._where:
                    raise FormatError(f"{path}: tensor {name[:80]!r} is in {self._where[name][0].name} as well")
                self._where[name] = (path, *entry)

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        path, dtype, shape, first, last = self._where[name]
        if dtype not in FLOATS:
            raise FormatError(f"{path}: tensor {name!r} has dtype {dtype}; the weights of a model must be float")
        if first == last:
            return np.zeros(shape, np.float32)
        raw = np.memmap(path, DTYPES[dtype], "r", first, ((last - first) // np.dtype(DTYPES[dtype]).itemsize,))
        values = np.asarray(raw).reshape(shape)
        if dtype == "BF16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.astype(np.float32, copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
