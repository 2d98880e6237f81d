"""The two weight tensors everything else speaks of: ternary (or binary) codes, and small integers.

    W ~ scale * codes + shift        one scale (and shift) per row and group of consecutive input columns

Both are plain numpy, checked on construction, and know nothing of how they are stored (`tercet.packing`) or computed
(`tercet.kernels`). A tensor-wide scale is stored as equal row scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet.errors import QuantizeError

__all__ = ["IntTensor", "TernaryTensor"]

GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True, eq=False)
class TernaryTensor:
    """A weight matrix of codes in {-1, 0, 1}; a binary one uses {-1, 1} only.

    Attributes:
        codes: int8[out, in].
        scale: float16[out, groups], finite, >= 0; a group whose scale is 0 has codes 0 (binary: any).
        shift: float16[out, groups], finite, or None.

    Raises QuantizeError where shapes, dtypes or values are not these.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float16]
    shift: NDArray[np.float16] | None = None

    def __post_init__(self) -> None:
        _check_groups("TernaryTensor", self.codes, self.scale, self.shift)
        if self.codes.size and (self.codes.min() < -1 or self.codes.max() > 1):
            raise QuantizeError("TernaryTensor: codes outside {-1, 0, 1}; round and clamp them first")

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group_size(self) -> int:
        """Input columns that share a scale; the whole row where scales are per row."""
        return int(self.codes.shape[1] // self.scale.shape[1])

    def dequantize(self) -> NDArray[np.float32]:
        """float32[out, in]: f32(scale)*T + f32(shift), one rounding (the product is exact)."""
        weight = _per_column(self.scale, self) * self.codes
        if self.shift is not None:
            weight = weight + _per_column(self.shift, self)
        return weight + np.float32(0)  # -0.0 + 0.0 = 0.0

    def equals(self, other: TernaryTensor) -> bool:
        return (
            np.array_equal(self.codes, other.codes)
            and np.array_equal(self.scale, other.scale)
            and (self.shift is None) == (other.shift is None)
            and (self.shift is None or other.shift is None or np.array_equal(self.shift, other.shift))
        )


@dataclass(frozen=True, eq=False)
class IntTensor:
    """A weight matrix of small integers: heads, embeddings and kept layers.

    Attributes:
        codes: int8[out, in], -127..127 (bits 8) or -8..7 (bits 4).
        bits: 8 or 4.
        scale: float16[out, groups], finite, >= 0.

    Raises QuantizeError where shapes, dtypes or values are not these.
    """

    codes: NDArray[np.int8]
    bits: int
    scale: NDArray[np.float16]

    def __post_init__(self) -> None:
        _check_groups("IntTensor", self.codes, self.scale, None)
        if self.bits not in (4, 8):
            raise QuantizeError(f"IntTensor: {self.bits} bits; use 4 or 8")
        low, high = (-8, 7) if self.bits == 4 else (-127, 127)
        if self.codes.size and (self.codes.min() < low or self.codes.max() > high):
            raise QuantizeError(f"IntTensor: codes outside {low}..{high}; round and clamp them first")

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def group_size(self) -> int:
        """Input columns that share a scale; the whole row where scales are per row."""
        return int(self.codes.shape[1] // self.scale.shape[1])

    def dequantize(self) -> NDArray[np.float32]:
        """float32[out, in]: f32(scale)*q, exact."""
        return _per_column(self.scale, self) * self.codes + np.float32(0)

    def equals(self, other: IntTensor) -> bool:
        same = np.array_equal(self.codes, other.codes) and np.array_equal(self.scale, other.scale)
        return same and self.bits == other.bits

    @classmethod
    def quantize(cls, weight: NDArray[np.float32], bits: int, group_size: int | None) -> IntTensor:
        """Round-to-nearest, symmetric: scale = amax/127 (bits 8) or amax/7 (bits 4) per row and group.

        Args:
            weight: float32[out, in], finite.
            bits: 8 or 4.
            group_size: input columns a scale; None for one scale a row.

        Raises QuantizeError where the group does not divide the width, or a value is not finite or too large.
        """
        rows, cols = weight.shape
        size = group_size or cols
        if cols % size:
            raise QuantizeError(f"width {cols} is not a multiple of the group size {size}; use 32, 64, 128 or row")
        high = 127 if bits == 8 else 7
        grouped = weight.reshape(rows, cols // size, size)
        amax = np.abs(grouped).max(axis=2)
        if not np.isfinite(amax).all() or amax.max(initial=0.0) / high > 65504:
            raise QuantizeError("weights are not finite, or too large for a float16 scale")
        scale = (amax / high).astype(np.float16)
        step = scale.astype(np.float32)[..., None]
        quotient = np.divide(grouped, step, out=np.zeros_like(grouped), where=step > 0)
        codes = np.clip(np.rint(quotient), -high, high).astype(np.int8)
        return cls(codes.reshape(rows, cols), bits, scale)


def _per_column(values: NDArray[np.float16], tensor: TernaryTensor | IntTensor) -> NDArray[np.float32]:
    return np.repeat(values.astype(np.float32), tensor.group_size, axis=1)


def _check_groups(
    name: str, codes: NDArray[np.int8], scale: NDArray[np.float16], shift: NDArray[np.float16] | None
) -> None:
    if codes.ndim != 2 or codes.dtype != np.int8:
        raise QuantizeError(f"{name}: codes are {codes.dtype}{list(codes.shape)}; they must be int8[out, in]")
    for what, values in (("scale", scale), ("shift", shift)):
        if values is None:
            continue
        if values.dtype != np.float16 or values.ndim != 2 or values.shape[0] != codes.shape[0]:
            raise QuantizeError(
                f"{name}: {what} is {values.dtype}{list(values.shape)}; it must be float16[out, groups]"
            )
        if values.shape[1] < 1 or codes.shape[1] % values.shape[1]:
            raise QuantizeError(f"{name}: {values.shape[1]} groups do not divide {codes.shape[1]} columns")
        if not np.isfinite(values).all():
            raise QuantizeError(f"{name}: {what} is not finite in float16")
    if (scale < 0).any():
        raise QuantizeError(f"{name}: negative scale; flip the codes instead")
    if shift is not None and shift.shape != scale.shape:
        raise QuantizeError(f"{name}: shift {list(shift.shape)} and scale {list(scale.shape)} differ in shape")
