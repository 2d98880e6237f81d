"""Read GGUF files written by anyone, believing nothing in them.

A GGUF is: magic, version, two counts, key/value metadata, tensor infos, padding, tensor data. The file is mapped, and
every count, length, shape and offset is checked against what is left of the file *before* anything is built from it,
so the memory used is bounded by the file's size and no arithmetic can wrap: Python's integers do not, and sums that
would wrap in 64 bits are refused all the same, each by its own name, because such a file is an attack and not a model.

Layout rules are those of llama.cpp's own loader: tensors follow one another in the order of their infos, each padded
to the alignment, with no hole, no overlap and nothing behind the last one. Only FormatError comes out of here.
Blocks are decoded by `gguf.quants`; the types that are supported are the table BLOCKS.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import NO_FILE, POINTER
from tercet.errors import FormatError, ModelError

__all__ = ["BLOCKS", "GGUFFile", "TensorInfo"]

# ggml type number: name, weights a block, bytes a block
BLOCKS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
# Those that exist and are not read, by name for the one who wonders why.
UNREAD = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0",
    35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
MAX_ENTRIES = 1 << 16  # metadata pairs, and tensors: real files hold dozens and at most thousands
MAX_KEY_BYTES = (1 << 16) - 1
MAX_NAME_BYTES = 64
MAX_STRING_BYTES = 1 << 24
MAX_STRINGS = 1 << 21  # elements of all string arrays: the largest vocabularies and merge lists stay below a million
MAX_ALIGNMENT = 4096
INT64_MAX = (1 << 63) - 1

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_DTYPES = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: numpy shape (rows first), ggml type number, absolute byte offset, bytes."""

    shape: tuple[int, ...]
    kind: int
    start: int
    nbytes: int


class _Cursor:
    """Takes values off the front of a buffer; refuses to take what is not there."""

    def __init__(self, data: mmap.mmap, where: Path) -> None:
        self.data, self.where, self.pos, self.end = data, where, 0, len(data)
        self.strings = 0  # elements of string arrays so far: each takes many times its bytes of memory

    def fail(self, what: str) -> FormatError:
        return FormatError(f"{self.where}: {what}, at byte {self.pos}; get the file again from its source")

    def need(self, count: int, what: str) -> None:
        if count > self.end - self.pos:
            raise self.fail(f"{what} needs {count} bytes, {self.end - self.pos} are left")

    def take(self, fmt: str, what: str) -> Any:
        size = struct.calcsize(fmt)
        self.need(size, what)
        (value,) = struct.unpack_from(fmt, self.data, self.pos)
        self.pos += size
        return value

    def string(self, limit: int, what: str) -> str:
        length = self.take("<Q", f"length of {what}")
        if length > limit:
            raise self.fail(f"{what} is {length} bytes long, at most {limit} are allowed")
        self.need(length, what)
        raw = self.data[self.pos : self.pos + length]
        self.pos += length
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail(f"{what} is not UTF-8") from None

    def boolean(self, what: str) -> bool:
        value = self.take("<B", what)
        if value > 1:
            raise self.fail(f"{what} is a bool with value {value}")
        return bool(value)

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.string(MAX_STRING_BYTES, what)
        if kind == _ARRAY:
            return self.array(what)
        if kind == 7:
            return self.boolean(what)
        if kind not in _SCALARS:
            raise self.fail(f"{what} has unknown type {kind}")
        return self.take(_SCALARS[kind], what)

    def array(self, what: str) -> list[str] | NDArray[Any]:
        kind, count = self.take("<I", f"element type of {what}"), self.take("<Q", f"length of {what}")
        if kind == _STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                raise self.fail(f"{what} has {count} strings, at most {MAX_STRINGS} are allowed in all")
            self.need(8 * count, what)
            return [self.string(MAX_STRING_BYTES, what) for _ in range(count)]
        if kind not in _DTYPES:
            raise self.fail(f"{what} is an array of " + ("arrays" if kind == _ARRAY else f"unknown type {kind}"))
        dtype = np.dtype(_DTYPES[kind])
        self.need(count * dtype.itemsize, what)
        values = np.frombuffer(self.data[self.pos : self.pos + count * dtype.itemsize], dtype)
        self.pos += values.nbytes
        if kind == 7 and values.size and values.max() > 1:
            raise self.fail(f"{what} holds a bool that is neither 0 nor 1")
        return values


class GGUFFile:
    """A checked GGUF: `metadata` (key -> str, int, float, bool, list of str, or numeric array) and `tensors` by name.

    Opening reads the header only; `read(name)` decodes one tensor to float32. Usable as a context manager.
    Raises FormatError for anything wrong with the file, at the latest in `read`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorInfo] = {}
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            reason = error.strerror if isinstance(error, OSError) else "the file is empty"
            raise FormatError(f"{path}: cannot be read as GGUF: {reason}; give the path of a .gguf file") from None
        try:
            self._parse(_Cursor(self._map, path))
        except BaseException:
            self._map.close()
            raise

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()

    def _parse(self, cursor: _Cursor) -> None:
        cursor.need(24, "the GGUF header")
        if self._map[: len(POINTER)] == POINTER:
            raise FormatError(f"{self.path}: {NO_FILE}")
        if self._map[:4] != b"GGUF":
            raise FormatError(f"{self.path}: no GGUF file (it begins with {self._map[:4]!r}); give a .gguf file")
        cursor.pos = 4
        version = cursor.take("<I", "the version")
        if version not in (2, 3):
            raise cursor.fail(f"GGUF version {version} (2 and 3 are read, little-endian only)")
        tensors, pairs = cursor.take("<Q", "the tensor count"), cursor.take("<Q", "the metadata count")
        for count, least, what in ((pairs, 13, "metadata pairs"), (tensors, 32, "tensors")):
            if count > MAX_ENTRIES or count * least > cursor.end - cursor.pos:
                raise cursor.fail(f"{count} {what} declared, more than the file can hold or than {MAX_ENTRIES}")
        for _ in range(pairs):
            key = cursor.string(MAX_KEY_BYTES, "a metadata key")
            if not key or key in self.metadata:
                raise cursor.fail(f"metadata key {key[:80]!r} is empty or appears twice")
            self.metadata[key] = cursor.value(cursor.take("<I", f"type of {key[:80]}"), key[:80])
        alignment = self._alignment(cursor)
        infos = [_tensor_info(cursor) for _ in range(tensors)]
        self._place(cursor, infos, alignment)

    def _alignment(self, cursor: _Cursor) -> int:
        value = self.metadata.get("general.alignment", 32)
        if type(value) is not int or not 1 <= value <= MAX_ALIGNMENT or value & value - 1:
            raise cursor.fail(f"general.alignment {value!r} is not a power of two up to {MAX_ALIGNMENT}")
        return value

    def _place(self, cursor: _Cursor, infos: list[tuple[str, tuple[int, ...], int, int, int]], alignment: int) -> None:
        start = _padded(cursor.pos, alignment)
        expected = 0
        for name, shape, kind, nbytes, offset in infos:
            if name in self.tensors:
                raise cursor.fail(f"tensor {name!r} appears twice")
            if offset % alignment:
                raise cursor.fail(f"tensor {name!r} begins at {offset}, not a multiple of the alignment {alignment}")
            if offset > INT64_MAX - nbytes:
                raise cursor.fail(f"offset {offset} of tensor {name!r} overflows")
            if start + offset + nbytes > cursor.end:
                raise cursor.fail(f"tensor {name!r} reaches {start + offset + nbytes - cursor.end} bytes past the end")
            if offset != expected:
                kind_of = "overlaps the one before" if offset < expected else "leaves a hole before it"
                raise cursor.fail(f"tensor {name!r} {kind_of} (begins at {offset}, expected {expected})")
            self.tensors[name] = TensorInfo(shape, kind, start + offset, nbytes)
            expected = _padded(offset + nbytes, alignment)
        if cursor.end > start + expected:
            raise cursor.fail(f"{cursor.end - start - expected} bytes follow the last tensor")

    def read(self, name: str) -> NDArray[np.float32]:
        """Tensor `name` decoded to float32, rows first. Raises FormatError: missing, or a value is not finite."""
        info = self.tensors.get(name)
        if info is None:
            raise FormatError(f"{self.path}: tensor {name!r} is missing; the file is incomplete")
        raw = np.frombuffer(self._map[info.start : info.start + info.nbytes], np.uint8)
        values = _decoder()(raw.reshape(*info.shape[:-1], -1), info.kind).reshape(info.shape)
        if not np.isfinite(values).all():
            raise FormatError(f"{self.path}: tensor {name!r} holds values that are not finite; the file is damaged")
        return values


def _tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int, int]:
    name = cursor.string(MAX_NAME_BYTES, "a tensor name")
    ndim = cursor.take("<I", f"dimensions of {name!r}")
    if not 1 <= ndim <= 4:
        raise cursor.fail(f"tensor {name!r} has {ndim} dimensions, 1 to 4 are allowed")
    dims = [cursor.take("<Q", f"shape of {name!r}") for _ in range(ndim)]
    kind, offset = cursor.take("<I", f"type of {name!r}"), cursor.take("<Q", f"offset of {name!r}")
    if kind not in BLOCKS:
        known = ", ".join(label for label, _, _ in BLOCKS.values())
        raise cursor.fail(f"tensor {name!r} has type {UNREAD.get(kind, kind)}, which is not read (known: {known})")
    label, block, block_bytes = BLOCKS[kind]
    weights = 1
    for dim in dims:
        if dim < 1 or dim > INT64_MAX // weights:
            raise cursor.fail(f"shape {dims} of tensor {name!r} is empty or its product overflows")
        weights *= dim
    if dims[0] % block:
        raise cursor.fail(f"rows of tensor {name!r} have {dims[0]} weights, not a multiple of {label}'s block {block}")
    blocks = weights // block
    if blocks > (INT64_MAX - MAX_ALIGNMENT) // block_bytes:
        raise cursor.fail(f"the bytes of tensor {name!r} overflow")
    return name, tuple(reversed(dims)), kind, blocks * block_bytes, offset


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _decoder() -> Callable[[NDArray[np.uint8], int], NDArray[np.float32]]:
    """gguf-py's block decoder; imported here because only conversion needs that package."""
    try:
        from gguf import GGMLQuantizationType
        from gguf.quants import dequantize
    except ImportError:
        raise ModelError("reading GGUF weights needs the package gguf; pip install 'tercet[train]'") from None

    def decode(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
        if kind == 0:  # the only type that gguf.quants hands back unconverted when it gets bytes
            return raw.view("<f4").astype(np.float32, copy=False)
        with np.errstate(all="ignore"):  # hostile scales overflow; read() refuses the result
            return np.ascontiguousarray(dequantize(raw, GGMLQuantizationType(kind)), np.float32)

    return decode
