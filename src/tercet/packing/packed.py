"""PackedTensor: a matrix as the file stores it and the kernels read it, checked on construction.

Everything but the codes' values is checked here, in time proportional to the scales: a PackedTensor that exists is safe
to compute with. Codes that mean nothing (`packing.invalid_codes`) are looked for by `verify`, and harmless to kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError
from tercet.packing import b1, q4, q8, t2, t5, t19
from tercet.packing.layout import ROWS, Layout

__all__ = ["FLOATS", "FORMATS", "LAYOUTS", "PackedTensor", "check_geometry", "stored_shapes"]

LAYOUTS: dict[str, Layout] = {
    "t2": t2.LAYOUT, "t19": t19.LAYOUT, "t5": t5.LAYOUT, "b1": b1.LAYOUT, "q8": q8.LAYOUT, "q4": q4.LAYOUT,
}  # fmt: skip
FLOATS: dict[str, type[np.floating[Any]]] = {"f16": np.float16, "f32": np.float32}
FORMATS = (*LAYOUTS, *FLOATS)
SHIFTED = ("t2", "t19", "t5", "b1")

MAX_DIMENSION = 2**31 - 1
MAX_GROUP = 2**17  # every integer sum of a group fits 32 bits


@dataclass(frozen=True, eq=False)
class PackedTensor:
    """A matrix [out, in] in one of FORMATS.

    Attributes:
        shape: (out, in), without padding.
        group_size: columns that share a scale; `in` where scales are per row, and for f16 and f32.
        codes: u8[ceil(out/16), tiles, 64]; t5: u8[out, ceil(in/5)]; f16 and f32: the matrix itself.
        scale: float16[ceil(out/16), groups, 16]; t5: float16[out, groups]; f16 and f32: None.
        shift: like scale, or None.

    Raises FormatError where these do not fit each other, or a scale or shift is not a number docs/format.md allows.
    """

    format: str
    shape: tuple[int, int]
    group_size: int
    codes: NDArray[Any]
    scale: NDArray[np.float16] | None = None
    shift: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        check_geometry(self.format, self.shape, self.group_size, self.shift is not None)
        expected = stored_shapes(self.format, self.shape, self.group_size, self.shift is not None)
        for what, array in (("codes", self.codes), ("scale", self.scale), ("shift", self.shift)):
            if (array is None) != (what not in expected):
                raise FormatError(
                    f"{self.format}{list(self.shape)}: {what} {'missing' if array is None else 'too many'}"
                )
            if array is None:
                continue
            dtype, shape = expected[what]
            if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
                found = f"{array.dtype}{list(array.shape)}"
                raise FormatError(f"{self.format}{list(self.shape)}: {what} is {found}, not {dtype}{list(shape)}")
            if what != "codes":
                self._check_values(what, array)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales, shifts, padding included."""
        return sum(array.nbytes for array in (self.codes, self.scale, self.shift) if array is not None)

    @property
    def bits_per_weight(self) -> float:
        """True bits: all bytes over logical weights."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def _check_values(self, what: str, values: NDArray[np.float16]) -> None:
        bits = values.view(np.uint16)
        # As bits, a finite positive float16 is at most 0x7BFF; all others, -0.0 too, are above.
        if what == "shift":
            wrong = int((bits & np.uint16(0x7FFF)).max()) > 0x7BFF or bool((bits == 0x8000).any())
        else:
            wrong = int(bits.max()) > 0x7BFF
        if wrong:
            sign = "" if what == "shift" else ", negative"
            raise FormatError(f"{self.format}{list(self.shape)}: a {what} is not finite{sign} or -0.0")
        tail = self.shape[0] % ROWS
        if tail and LAYOUTS[self.format].tiled and bits[-1, :, tail:].any():
            raise FormatError(f"{self.format}{list(self.shape)}: a padding row has a {what} that is not 0")


def check_geometry(fmt: str, shape: tuple[int, int], group: int, shift: bool) -> None:
    """Raises FormatError where a format cannot store such a matrix."""
    if fmt not in FORMATS:
        raise FormatError(f"unknown format {fmt[:40]!r}; known are {', '.join(FORMATS)}")
    rows, cols = shape
    if not (0 < rows <= MAX_DIMENSION and 0 < cols <= MAX_DIMENSION):
        raise FormatError(f"{fmt}: shape {list(shape)} is empty or too large")
    if shift and fmt not in SHIFTED:
        raise FormatError(f"{fmt}: has no shift; use {', '.join(SHIFTED)}")
    if fmt in FLOATS:
        if group != cols:
            raise FormatError(f"{fmt}: has no groups; its group size is its width, {cols}")
        return
    if group > MAX_GROUP:
        raise FormatError(f"{fmt}: a scale for {group} columns; at most {MAX_GROUP} may share one")
    sizes = LAYOUTS[fmt].groups
    if group != cols and group in t2.LAYOUT.groups and group not in sizes:
        raise FormatError(f"{fmt}: groups of {group} gain nothing over 2 bits; use t2, or groups of 128 or row")
    if group != cols and (group not in sizes or cols % group):
        raise FormatError(
            f"{fmt}: groups of {group} do not fit {cols} columns; use {', '.join(map(str, sizes))} or row"
        )


def stored_shapes(
    fmt: str, shape: tuple[int, int], group: int, shift: bool
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Dtype and shape of "codes", and of "scale" and "shift" where there are any."""
    if fmt in FLOATS:
        return {"codes": (np.dtype(FLOATS[fmt]), tuple(shape))}
    layout = LAYOUTS[fmt]
    codes: np.dtype[Any] = np.dtype(np.uint8)
    half: np.dtype[Any] = np.dtype(np.float16)
    scale = (half, layout.scale_shape(*shape, group))
    stored = {"codes": (codes, layout.code_shape(*shape, group)), "scale": scale}
    return stored | {"shift": scale} if shift else stored
