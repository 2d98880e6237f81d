"""What all quantizers share: groups, float16 scales, nearest levels, the straight-through estimator.

A quantizer is a `torch.nn.utils.parametrize` parametrization: it works on any module and replaces no layer.

    fit     float32 weights -> alpha, gamma of each group             what a method is; its file has nothing else
    solve   alpha and gamma rounded to float16, then codes T          `Levels`
    forward alpha*T + gamma in float32, cast to w's dtype last        what training sees; d/dw is the identity
    freeze  the same `Levels` as numpy                                what ships

Training begins with `start`, tells how far it is by `schedule`, and calls `after_step` when the weights have moved;
most quantizers need none of it. Those whose levels are trained too are in `tercet.quantizers.learned`.

Law 1: `freeze(w).dequantize()` has the float32 bits that `forward(w)` casts. Both call `solve`, scales
are rounded before anything uses them, sums do not depend on the number of threads (see `total`), and autocast is off
inside. Weights past float16's range, or not finite, are refused.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from tercet.quantizers.levels import Levels, check_levels, check_weight, nearest_latent, round_to_levels
from tercet.tensor import TernaryTensor

__all__ = ["GroupSize", "Quantizer", "QuantizerConfig", "total", "units"]

GroupSize = Literal[128, 64, 32, "row", "tensor"]
CHUNK = 1 << 19  # weights solved at a time: a few float32 copies of them stay in cache
SUMMED = 1 << 14  # columns that float32 adds up


class QuantizerConfig(BaseModel, frozen=True, extra="forbid"):
    """Settings of a quantizer; each has a `name` of its own, by which a recipe picks it.

    Attributes:
        group_size: input columns that share a scale; None leaves it to the recipe (`build` then takes rows).
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    group_size: GroupSize | None = None

    @property
    def two_levels(self) -> bool:
        """Whether the codes are binary, and stored in one bit."""
        return False

    @property
    def output_clip(self) -> float | None:
        """What the outputs of a quantized linear, bias included, are clipped to on both sides; None: nothing."""
        return None

    def build(self) -> Quantizer:
        raise NotImplementedError


class _StraightThrough(torch.autograd.Function):
    """Values that stand in for w going forward, bit for bit; the gradient passes to w unchanged."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, values: Tensor) -> Tensor:  # noqa: ARG004
        return values.to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return grads[0], None


class Quantizer(nn.Module):
    """Base of the quantizers; a subclass gives `fit`.

    Args:
        group_size: input columns that share a scale, "row", or "tensor" (stored as equal row scales).
    """

    binary = False
    trains_latent = True  # False: what `start` returns stays as it is, and may have any dtype

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row") -> None:
        super().__init__()
        self.group_size = group_size

    def extra_repr(self) -> str:
        return f"group_size={self.group_size}"

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        """The latent weight that training begins with, [out, in], in float32 or wider.

        Args:
            w: [out, in], the pretrained weight.
            levels: codes and scales to begin with instead of this quantizer's own, from calibration. Then the latent
                is the nearest to w that rounds to their codes with their scales.
        """
        w = w.detach() if w.dtype == torch.float64 else w.detach().float()
        return w if levels is None else nearest_latent(w, levels)

    def schedule(self, progress: float) -> None:
        """Told before each step: the share of training that is done, 0..1."""

    def after_step(self, latent: Tensor) -> None:
        """Told after each optimizer step, without gradients; may change the latent weight in place."""

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """alpha and gamma (or None), float32[units, 1, 1], for float32[units, rows, columns]; a unit shares a scale."""
        raise NotImplementedError

    def codes(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        """T, int8 of x's shape; scale and shift are already float16 values."""
        return round_to_levels(x, scale, shift, binary=self.binary)

    def forward(self, w: Tensor) -> Tensor:
        """What training sees: w's shape and dtype."""
        with torch.no_grad():
            values = self.solve(w).dequantize()
        straight: Tensor = _StraightThrough.apply(w, values)  # type: ignore[no-untyped-call]
        return straight

    def freeze(self, w: Tensor) -> TernaryTensor:
        """What ships: the codes, scales and shifts that `forward(w)` used."""
        return self.solve(w).to_tensor()

    @torch.no_grad()
    def solve(self, w: Tensor) -> Levels:
        """Levels of a weight matrix.

        Args:
            w: [out, in], any float dtype.

        Raises QuantizeError where w is no finite matrix, its values leave float16's range, or the group does not
        divide its width.
        """
        check_weight(w, self.group_size)
        rows = w.shape[0]
        with torch.autocast(w.device.type, enabled=False):
            parts = [self._solve(x) for x in units(w.detach().float(), self.group_size)]
        codes = torch.cat([codes for codes, _, _ in parts])
        scale = torch.cat([scale for _, scale, _ in parts])
        shifts = [shift for _, _, shift in parts if shift is not None]
        shift = self._per_row(torch.cat(shifts), rows) if shifts else None
        return Levels.of(codes.reshape(w.shape), self._per_row(scale, rows), shift, binary=self.binary)

    def _per_row(self, values: Tensor, rows: int) -> Tensor:
        return values.reshape(1, 1).expand(rows, 1) if self.group_size == "tensor" else values.reshape(rows, -1)

    def _solve(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        scale, shift = self.fit(x)
        check_levels(scale, shift)
        scale = scale.abs().half().float()
        shift = None if shift is None else shift.half().float()
        return self.codes(x, scale, shift), scale, shift


def units(w: Tensor, group_size: int | str) -> tuple[Tensor, ...]:
    """Views (of a copy if w is not contiguous) [units, rows, columns] of the parts of w that share a scale."""
    rows, cols = w.shape
    if group_size == "tensor":
        return (w.reshape(1, rows, cols),)
    each = cols if group_size == "row" else int(group_size)
    return torch.split(w.reshape(-1, 1, each), max(1, CHUNK // each))


def total(x: Tensor) -> Tensor:
    """Sum over the last two axes, kept: [units, rows, columns] -> float32[units, 1, 1].

    Torch splits a sum of 32768 terms or more among threads, and its bits then depend on their number. So float32 adds
    up 16384 at most, and float64 the rest.
    """
    parts = [part.sum(-1, keepdim=True, dtype=torch.float32) for part in torch.split(x, SUMMED, dim=-1)]
    return torch.cat(parts, dim=-1).sum((-2, -1), keepdim=True, dtype=torch.float64).float()
