"""The header of a safetensors file, read without trust and without touching the data; and written.

    u64 n | n bytes of JSON {"name": {"dtype", "shape", "data_offsets": [start, end]}, ...} | data

Everything is checked before anything is allocated: the bytes must be exactly those of the tensors, one after another,
without hole, overlap or rest. The same checks guard our own files and the source models that transformers is to open.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.artifact import strict_json
from tercet.errors import FormatError

__all__ = ["NO_FILE", "POINTER", "Entry", "lay_out", "open_regular", "read_header", "write_safetensors"]

ALIGN = 64
POINTER = b"version https://git-lfs"  # what stands in the place of a large file in a repository cloned without git-lfs
NO_FILE = "a pointer of git-lfs, not the file itself; run in its repository: git lfs pull"
MAX_NAME = 1024
MAX_DIMENSIONS = 8
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
NAMES = {
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int32": "I32",
    "int64": "I64",
    "float16": "F16",
    "float32": "F32",
}


class Entry(NamedTuple):
    """One tensor: safetensors dtype, shape, and its bytes [start, end) counted from the beginning of the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def open_regular(path: Path) -> int:
    """A read-only descriptor of a plain file (a pipe or device would hang the reader); raises FormatError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror}; is the path right?") from None
    except ValueError:  # a NUL, or half a surrogate pair
        raise FormatError(f"{str(path)[:200]!r}: no name a file can have; correct it") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError(f"{path}: not a regular file")
    return descriptor


def read_header(path: str | Path) -> dict[str, Entry]:
    """Tensors of a safetensors file by name, in the order of their bytes; any dtype safetensors knows.

    Raises FormatError where the header is anything but a full and exact account of the file.
    """
    descriptor = open_regular(Path(path))
    try:
        return parse_header(descriptor, str(path))
    finally:
        os.close(descriptor)


def parse_header(descriptor: int, where: str) -> dict[str, Entry]:
    size = os.fstat(descriptor).st_size
    if size < 8:
        raise FormatError(f"{where}: {size} bytes are no safetensors file")
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if os.pread(descriptor, len(POINTER), 0) == POINTER:
        raise FormatError(f"{where}: {NO_FILE}")
    if length > min(size - 8, strict_json.MAX_JSON):
        limit = f"the file has {size} and {strict_json.MAX_JSON} are read"
        raise FormatError(f"{where}: header of {length} bytes, but {limit}; cut off, or no safetensors file?")
    raw = os.pread(descriptor, length, 8)
    if len(raw) != length or raw[:1] != b"{":
        raise FormatError(f"{where}: the header is not a JSON object; no safetensors file?")
    header = strict_json.parse(raw, f"{where}: header")
    _check_metadata(header.pop("__metadata__", {}), where)
    entries = {name: _entry(name, value, 8 + length, where) for name, value in header.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
    _check_cover(ordered, 8 + length, size, where)
    return ordered


def _check_metadata(metadata: Any, where: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{where}: __metadata__ must map strings to strings")


def _entry(name: str, value: Any, base: int, where: str) -> Entry:
    if not 0 < len(name) <= MAX_NAME:
        raise FormatError(f"{where}: a tensor name of {len(name)} characters; at most {MAX_NAME} are read")
    where = f"{where}: tensor {name[:200]!r}"
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: must have dtype, shape, data_offsets and nothing else")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise FormatError(f"{where}: unknown dtype {str(dtype)[:40]!r}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise FormatError(f"{where}: shape must be at most {MAX_DIMENSIONS} sizes below 2^63")
    if not _naturals(offsets) or len(offsets) != 2:
        raise FormatError(f"{where}: data_offsets must be two offsets below 2^63")
    bits = math.prod(shape) * BITS[dtype]
    if bits >= 2**63 or bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise FormatError(f"{where}: {dtype}{str(shape)[:200]} does not take {offsets[1] - offsets[0]} bytes")
    return Entry(dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(entries: dict[str, Entry], position: int, size: int, where: str) -> None:
    for name, entry in entries.items():
        if entry.start != position:
            what = "overlaps the one before" if entry.start < position else "leaves a hole before it"
            raise FormatError(f"{where}: tensor {name[:200]!r} {what}")
        position = entry.end
    if position != size:
        raise FormatError(f"{where}: tensors end at byte {position}, the file at {size}; cut off, or bytes were added")


def lay_out(arrays: Mapping[str, NDArray[Any]]) -> tuple[bytes, list[str]]:
    """The header (length included) and the order of the data.

    Tensors whose size divides by 64 come first, then 32, 16 and so on: each starts at a multiple of what divides its
    size, and there are no holes, which safetensors forbids. Spaces after the JSON let the data start at a multiple of
    64.
    """
    order = sorted(arrays, key=lambda name: -_alignment(arrays[name].nbytes))
    header, position = {}, 0
    for name in order:
        array = arrays[name]
        if not 0 < len(name) <= MAX_NAME or name == "__metadata__" or array.dtype.name not in NAMES:
            raise FormatError(f"cannot store tensor {name[:200]!r} of dtype {array.dtype}")
        end = position + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": list(array.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGN)
    return len(text).to_bytes(8, "little") + text, order


def _alignment(nbytes: int) -> int:
    return min(ALIGN, nbytes & -nbytes) if nbytes else ALIGN


def write_safetensors(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """A plain safetensors file inside a `fsio.atomic_folder`; raises StorageError, FormatError for an unknown dtype."""
    header, order = lay_out(arrays)
    fsio.write_file(path, (header, *(np.ascontiguousarray(arrays[name]) for name in order)))
