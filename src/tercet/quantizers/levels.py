"""Float16 levels: codes with their scales and shifts in torch, the nearest-level rounding, and what is refused.

Everything a quantizer or a calibration ends in passes `Levels.of`, the one place that rounds to float16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tercet.errors import QuantizeError
from tercet.tensor import GROUP_SIZES, TernaryTensor

__all__ = ["Levels", "check_levels", "check_start", "check_weight", "nearest_latent", "round_to_levels"]

LARGEST = 65504.0  # float16's
INSIDE = 0.5  # of half a scale: so far inside its cell a latent begins; at the edge the first steps would flip it


@dataclass(frozen=True, eq=False)
class Levels:
    """The torch twin of `TernaryTensor`.

    Attributes:
        codes: int8[out, in] in {-1, 0, 1}, binary in {-1, 1}.
        scale: float16[out, groups], >= 0.
        shift: float16[out, groups], or None.
    """

    codes: Tensor
    scale: Tensor
    shift: Tensor | None = None

    @classmethod
    def of(cls, codes: Tensor, scale: Tensor, shift: Tensor | None = None, *, binary: bool = False) -> Levels:
        """Round float scales and shifts to float16; a negative scale flips its codes, one that rounds to 0 clears them.

        Args:
            codes: [out, in] of -1, 0, 1 in any dtype.
            scale, shift: float[out, groups].
            binary: codes stay in {-1, 1}, whatever the scale.

        Raises QuantizeError where a level is not finite, or too large for float16.
        """
        check_levels(scale, shift)
        rows, groups = scale.shape
        grouped = codes.to(torch.int8).reshape(rows, groups, -1)
        if (scale < 0).any():
            grouped = torch.where(scale[..., None] < 0, -grouped, grouped)
        half = scale.abs().half()
        if not binary and (half == 0).any():
            grouped = torch.where(half[..., None] == 0, 0, grouped).to(torch.int8)
        return cls(grouped.reshape(codes.shape), half, None if shift is None else shift.half() + 0.0)

    def dequantize(self) -> Tensor:
        """float32[out, in]: scale*T + shift, one rounding, no -0.0."""
        rows, groups = self.scale.shape
        values = self.codes.reshape(rows, groups, -1) * self.scale.float()[..., None]
        if self.shift is not None:
            values += self.shift.float()[..., None]
        values += 0.0
        return values.reshape(self.codes.shape)

    def rows(self, at: slice) -> Levels:
        """The levels of some rows."""
        return Levels(self.codes[at], self.scale[at], None if self.shift is None else self.shift[at])

    @classmethod
    def from_tensor(cls, tensor: TernaryTensor) -> Levels:
        """A copy: the tensor's arrays may be views of a file."""
        shift = None if tensor.shift is None else torch.tensor(tensor.shift)
        return cls(torch.tensor(tensor.codes), torch.tensor(tensor.scale), shift)

    def to_tensor(self) -> TernaryTensor:
        shift = None if self.shift is None else self.shift.cpu().numpy()
        return TernaryTensor(self.codes.cpu().numpy(), self.scale.cpu().numpy(), shift)


def round_to_levels(w: Tensor, scale: Tensor, shift: Tensor | None = None, *, binary: bool = False) -> Tensor:
    """The nearest code of each weight, int8; a weight half-way between two levels takes 0, or +1 where binary.

    Args:
        w: float, any shape.
        scale, shift: of a shape that broadcasts with w; scale >= 0. Ternary codes are 0 where it is 0.
    """
    x = w if shift is None else w - shift
    if binary:
        return (x >= 0).view(torch.int8) * 2 - 1
    half = torch.where(scale > 0, scale * 0.5, torch.inf)
    return (x > half).view(torch.int8) - (x < -half).view(torch.int8)


def nearest_latent(w: Tensor, levels: Levels) -> Tensor:
    """The matrix nearest to w whose weights all round to the codes of `levels`.

    Error feedback and coordinate descent choose other codes than the nearest ones; a latent weight that is to be
    trained on from there has to lie in the cell of its code: above scale/2 for 1, below -scale/2 for -1, between for 0.
    """
    rows, groups = levels.scale.shape
    half = levels.scale.to(w.dtype)[..., None] / 2
    x = w.reshape(rows, groups, -1)
    if levels.shift is not None:
        x = x - levels.shift.to(w.dtype)[..., None]
    codes = levels.codes.reshape(x.shape)
    out, zero = half * (1 + INSIDE), half * (1 - INSIDE)
    bounded = torch.where(codes == 0, x.clamp(-zero, zero), torch.where(codes > 0, x.clamp(min=out), x.clamp(max=-out)))
    # A group without a scale is all zeros whatever its weights.
    bounded = torch.where(half > 0, bounded, x)
    if levels.shift is not None:
        bounded = bounded + levels.shift.to(w.dtype)[..., None]
    return bounded.reshape(w.shape)


def check_weight(w: Tensor, group_size: int | str) -> None:
    """Raise QuantizeError unless w is a matrix that fits float16's range and that the group divides."""
    if w.ndim != 2 or not w.is_floating_point() or not w.numel():
        raise QuantizeError(f"weight is {str(w.dtype)[6:]}{list(w.shape)}; only float matrices can be quantized")
    width = w.shape[1]
    if isinstance(group_size, int) and width % group_size:
        fits = [str(size) for size in GROUP_SIZES if width % size == 0]
        raise QuantizeError(f"width {width} is not a multiple of the group size {group_size}; use {_either(fits)}")
    low, high = w.detach().aminmax()
    if not (low >= -LARGEST and high <= LARGEST):  # also NaN
        raise QuantizeError("weight has values that are not finite, or beyond float16's 65504; mend the model first")


def check_levels(scale: Tensor, shift: Tensor | None) -> None:
    """Raise QuantizeError where a level, at most |shift| + |scale|, is not finite or beyond float16."""
    highest = scale.abs() if shift is None else scale.abs() + shift.abs()
    if not (highest <= LARGEST).all():
        raise QuantizeError("a scale or level is not finite, or beyond float16's 65504; the weights are too large")


def check_start(levels: Levels, w: Tensor, group_size: int | str, *, shift: bool, binary: bool) -> None:
    """Raise QuantizeError where a quantizer of these groups, with or without shifts, cannot begin with `levels`."""
    groups = w.shape[1] // group_size if isinstance(group_size, int) else 1
    if levels.scale.shape[1] != groups:
        raise QuantizeError(f"the start has {levels.scale.shape[1]} groups a row, not {groups}; calibrate with as many")
    if group_size == "tensor" and not (levels.scale == levels.scale[0]).all():
        raise QuantizeError("the start has a scale for each row, not one for the tensor; train with row scales")
    if levels.shift is not None and not shift:
        raise QuantizeError("the start has shifts, which this quantizer has not; calibrate without, as by l2")
    if binary and not levels.codes.all():
        raise QuantizeError("the start is ternary, this quantizer binary; calibrate with binary")


def _either(fits: list[str]) -> str:
    return ", ".join(fits) + " or row" if fits else "row"
