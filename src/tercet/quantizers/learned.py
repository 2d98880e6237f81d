"""`learned`, levels trained as the weights are: alpha (and gamma) of a group are parameters, T the nearest level.

    Q = alpha*T + gamma      T = -1 where w - gamma < -alpha/2, 1 where it is > alpha/2, else 0 (binary: the sign)

    dL/dw = dL/dQ            straight through
    dL/dalpha = sum dL/dQ*T  over the group
    dL/dgamma = sum dL/dQ

Forward uses the float16 values of alpha and gamma; their gradients pass the rounding unchanged. Before `start` it is
`l2` (`itf` with a shift, `binary` with two levels); it begins there, or where calibration left off. `dlt` differs in
its thresholds, `seq` in its gradients, `crulis` in what the latent weight is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from tercet.quantizers import fused
from tercet.quantizers.base import Quantizer, QuantizerConfig
from tercet.quantizers.binary import Binary
from tercet.quantizers.itf import Itf
from tercet.quantizers.l2 import L2
from tercet.quantizers.levels import Levels, check_levels, check_start, check_weight

__all__ = ["Learned", "LearnedConfig"]


class _Dequantize(torch.autograd.Function):
    """alpha*T + gamma with the gradients of the module's docstring; only the codes are kept for backward.

    `passing`, [rows, groups, columns] or less that broadcasts to it, is what dL/dw is multiplied by; None is 1.
    """

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, scale: Tensor, shift: Tensor | None, levels: Levels, passing: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(levels.codes, scale, passing)
        ctx.shifted = shift is not None
        return levels.dequantize().to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None, None]:
        codes, scale, passing = ctx.saved_tensors
        gradient = grads[0]
        grouped = gradient.reshape(*scale.shape, -1)
        # Levels.of flips codes of negative scales, so these are the codes of |scale|.
        towards = (grouped * codes.reshape(grouped.shape)).sum(-1, dtype=scale.dtype) * scale.sign()
        shift = grouped.sum(-1, dtype=scale.dtype) if ctx.shifted else None
        if passing is not None:
            gradient = (grouped * passing).to(gradient.dtype).reshape(gradient.shape)
        return gradient, towards, shift, None, None


class Learned(Quantizer):
    """Attributes: scale, shift: float32[out, groups] parameters, made by `start`; shift is None without one. [1, 1]
    where the whole tensor shares them.

    Args:
        with_shift: train gamma too.
        binary: two levels.
    """

    def __init__(
        self, group_size: int | Literal["row", "tensor"] = "row", with_shift: bool = False, binary: bool = False
    ) -> None:
        super().__init__(group_size)
        self.with_shift = with_shift
        self.binary = binary
        self.scale: nn.Parameter | None = None
        self.shift: nn.Parameter | None = None

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        method = Binary if self.binary else Itf if self.with_shift else L2
        return method(self.group_size).fit(x)

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        if levels is not None:
            check_start(levels, w, self.group_size, shift=self.with_shift, binary=self.binary)
        latent = super().start(w, levels)
        levels = levels or super().solve(w)
        own = slice(0, 1) if self.group_size == "tensor" else slice(None)
        self.scale = nn.Parameter(levels.scale[own].to(latent.dtype))
        if self.with_shift:
            shift = torch.zeros_like(levels.scale) if levels.shift is None else levels.shift
            self.shift = nn.Parameter(shift[own].to(latent.dtype))
        return latent

    def passing(self, w: Tensor, levels: Levels) -> Tensor | None:  # noqa: ARG002
        """What dL/dQ is multiplied by to be dL/dw; broadcasts with [rows, groups, columns]. None: 1."""
        return None

    def forward(self, w: Tensor) -> Tensor:
        if self.scale is None:
            return super().forward(w)
        if type(self) is Learned and self.group_size != "tensor" and fused.fits(w):
            self._check(w)
            return fused.dequantize(w, self.scale, self.shift, binary=self.binary)
        levels = self.solve(w)
        passing = self.passing(w.detach(), levels)
        values: Tensor = _Dequantize.apply(  # type: ignore[no-untyped-call]
            w, self.scale, self.shift, levels, passing
        )
        return values

    @torch.no_grad()
    def solve(self, w: Tensor) -> Levels:
        if self.scale is None:
            return super().solve(w)
        self._check(w)
        with torch.autocast(w.device.type, enabled=False):
            scale = self.scale.abs().half()
            shift = None if self.shift is None else self.shift.half()
            x = w.detach().float().reshape(*scale.shape, -1)
            codes = self.codes(x, scale.float()[..., None], None if shift is None else shift.float()[..., None])
        rows = w.shape[0] if self.group_size == "tensor" else len(scale)
        shift = None if shift is None else shift.expand(rows, -1)
        return Levels.of(codes.reshape(w.shape), scale.expand(rows, -1), shift, binary=self.binary)

    def _check(self, w: Tensor) -> None:
        assert self.scale is not None
        check_weight(w, self.group_size)
        check_levels(self.scale, self.shift)


class LearnedConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        shift: train gamma too, at half a bit a weight in groups of 32 and a quarter in groups of 64.
        binary: two levels.
    """

    name: Literal["learned"] = "learned"
    shift: bool = False
    binary: bool = False

    @property
    def two_levels(self) -> bool:
        return self.binary

    def build(self) -> Learned:
        return Learned(self.group_size or "row", self.shift, self.binary)
