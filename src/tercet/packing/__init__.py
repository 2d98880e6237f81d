"""Stored formats: what the file holds and the kernels read, one plain module a format (docs/format.md).

    t2 t19 t5   ternary, 2 / 1.69 / 1.6 bits       TernaryTensor
    b1          binary, 1 bit                      TernaryTensor with codes in {-1, 1}
    q8 q4       small integers                     IntTensor
    f16 f32     kept as they were                  float array

`unpack(pack(t, format)) == t`, for each of them, in the dtype that ships.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError, QuantizeError
from tercet.packing.layout import ROWS, Layout
from tercet.packing.packed import FLOATS, FORMATS, LAYOUTS, PackedTensor, check_geometry, stored_shapes
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["FORMATS", "PackedTensor", "check_geometry", "invalid_codes", "pack", "stored_shapes", "unpack"]

Matrix = TernaryTensor | IntTensor | NDArray[np.float16] | NDArray[np.float32]


def pack(tensor: Matrix, format: str) -> PackedTensor:
    """Stores a matrix in a format; for f16, float32 values are rounded to float16.

    Raises QuantizeError where the format cannot hold it: another kind of tensor, a group size it has not, a zero in b1,
    a float that is not finite.
    """
    try:
        if isinstance(tensor, np.ndarray):
            return _pack_float(tensor, format)
        return _pack_codes(tensor, format)
    except FormatError as error:
        raise QuantizeError(f"cannot pack {_describe(tensor)}: {error}") from None


def unpack(packed: PackedTensor) -> Matrix:
    """The tensor that was packed; raises FormatError where codes are invalid."""
    if packed.scale is None:
        floats: NDArray[Any] = packed.codes
        return floats
    invalid = invalid_codes(packed)
    if invalid:
        raise FormatError(f"{packed.format}{list(packed.shape)}: {invalid} invalid codes; the file is damaged")
    layout = LAYOUTS[packed.format]
    codes = layout.unpack(packed.codes, packed.shape, packed.group_size)
    scale = _untile(packed.scale, layout, packed.shape[0])
    if packed.format in ("q8", "q4"):
        return IntTensor(codes, int(packed.format[1]), scale)
    shift = None if packed.shift is None else _untile(packed.shift, layout, packed.shape[0])
    return TernaryTensor(codes, scale, shift)


def invalid_codes(packed: PackedTensor) -> int:
    """Codes no packing writes: 2-bit 3, base-3 overflow, -128, padding that is not 0; of floats, those not finite."""
    if packed.scale is None:
        return _not_finite(packed.codes)
    return LAYOUTS[packed.format].count_invalid(packed.codes, packed.shape, packed.group_size)


def _pack_codes(tensor: TernaryTensor | IntTensor, fmt: str) -> PackedTensor:
    shift = tensor.shift if isinstance(tensor, TernaryTensor) else None
    check_geometry(fmt, tensor.shape, tensor.group_size, shift is not None)
    wanted = {"q8": 8, "q4": 4}.get(fmt)
    held = tensor.bits if isinstance(tensor, IntTensor) else None
    if fmt in FLOATS or wanted != held:
        raise FormatError(f"{fmt} does not hold this kind of tensor")
    if fmt == "b1" and not tensor.codes.all():
        raise FormatError("b1 holds -1 and 1 only; use t2 where there are zeros")
    layout = LAYOUTS[fmt]
    scales = [None if values is None else _tile(values, layout) for values in (tensor.scale, shift)]
    codes = layout.pack(tensor.codes, tensor.group_size)
    return PackedTensor(fmt, tensor.shape, tensor.group_size, codes, scales[0], scales[1])


def _pack_float(array: NDArray[Any], fmt: str) -> PackedTensor:
    if fmt not in FLOATS or array.ndim != 2 or array.dtype not in (np.float16, np.float32):
        raise FormatError(f"{fmt[:40]} does not hold this; float matrices go into f16 or f32")
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(array, dtype=FLOATS[fmt])
    packed = PackedTensor(fmt, (array.shape[0], array.shape[1]), array.shape[1], stored)
    if invalid_codes(packed):
        raise FormatError("a value is not finite, or too large for float16")
    return packed


def _not_finite(floats: NDArray[Any]) -> int:
    # A float is not finite exactly where its exponent is all ones: far cheaper than isfinite on float16.
    top: Any = np.uint16(0x7C00) if floats.dtype == np.float16 else np.uint32(0x7F800000)
    rows = max(1, (1 << 20) // floats.shape[1])
    blocks = (floats[first : first + rows].view(top.dtype) for first in range(0, len(floats), rows))
    return sum(int(np.count_nonzero((block & top) == top)) for block in blocks)


def _tile(values: NDArray[np.float16], layout: Layout) -> NDArray[np.float16]:
    """float16[out, groups] -> the stored order; -0.0 becomes 0.0."""
    rows, groups = values.shape
    if not layout.tiled:
        return values + np.float16(0)
    padded = np.zeros((-(-rows // ROWS) * ROWS, groups), np.float16)
    padded[:rows] += values
    return np.ascontiguousarray(padded.reshape(-1, ROWS, groups).transpose(0, 2, 1))


def _untile(stored: NDArray[np.float16], layout: Layout, rows: int) -> NDArray[np.float16]:
    if not layout.tiled:
        return stored
    return np.ascontiguousarray(stored.transpose(0, 2, 1).reshape(-1, stored.shape[1])[:rows])


def _describe(tensor: Matrix) -> str:
    kind = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
    return f"{kind}{list(tensor.shape)}"
