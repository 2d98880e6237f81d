"""`lrqat`, Low-Rank Quantization-Aware Training (Bondarenko et al. 2024, arXiv 2406.06385), at three levels.

    Q = s * clip(round(Z), -1, 1)      Z = Phi(W0/s0) + c*A B    A [out, rank], B [rank, in]

W0 stays as it is: Phi(W0/s0) takes the weight's place, frozen, and only A, B and s are trained. Phi rounds what is kept
of it: `fp32`, `bf16`, or `int8` fixed point, round(64 * clip(W0/s0, -2, 127/64)), one byte a weight. s begins as s0,
`l2`'s or the calibrated one, A as 0, B as small random numbers that depend on its shape only. `round` passes its
gradient, `clip` passes none where it clips:

    G = s * dL/dQ where |Z| < 1.5, else 0      dL/dA = c*G B^T      dL/dB = c*A^T G      dL/ds = sum dL/dQ*T

Z is computed again in backward. A linear still keeps Q for its input's gradient; within `recomputed()` it keeps a note
instead, and Q is computed again too: then no float matrix of the weight's size outlives its use, but for W0 itself
where it is not int8. (Not under autocast, whose cast copy the linear keeps: use gradient checkpointing there.)

c = alpha/rank, with alpha = 1 and rank = 32 as in the authors' settings (Qualcomm-AI-research/lr-qat), where A and B
have a learning rate of 1e-3 and s of 1e-5.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from tercet.errors import QuantizeError
from tercet.quantizers.base import Quantizer, QuantizerConfig
from tercet.quantizers.l2 import L2
from tercet.quantizers.levels import Levels, check_levels, check_start, check_weight, round_to_levels

__all__ = ["LrQat", "LrQatConfig", "recomputed"]

Base = Literal["fp32", "bf16", "int8"]
FIXED = 64  # int8 steps a scale


class _LowRank(torch.autograd.Function):
    """Keeps the frozen base, A, B and s."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, a: Tensor, b: Tensor, scale: Tensor, c: float, levels: Levels) -> Tensor:
        ctx.save_for_backward(base, a, b, scale)
        ctx.c = c
        return levels.dequantize().to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor, Tensor, None, None]:
        base, a, b, scale = ctx.saved_tensors
        z = _latent(base, a, b, ctx.c).reshape(*scale.shape, -1)
        g = grads[0].reshape(z.shape)
        to_scale = (g * round_to_levels(z, torch.ones_like(scale[..., None]))).sum(-1) * scale.sign()
        inner = torch.where(z.abs() < 1.5, g, 0).mul_(scale.abs()[..., None] * ctx.c).reshape(base.shape)
        return None, inner @ b.T, a.T @ inner, to_scale, None, None


def _latent(base: Tensor, a: Tensor, b: Tensor, c: float) -> Tensor:
    """Z, float[out, in]."""
    with torch.autocast(base.device.type, enabled=False):
        phi = base.to(a.dtype)
        return torch.addmm(phi.div_(FIXED) if base.dtype == torch.int8 else phi, a, b, alpha=c)


class LrQat(Quantizer):
    """Its weight is Phi(W0/s0), frozen. Attributes: a [out, rank], b [rank, in], scale [out, groups] ([1, 1] where the
    whole tensor shares it): float32 parameters made by `start`.

    Args:
        rank: of what is trained.
        alpha: rank times c.
        base: what W0 is kept as.
    """

    trains_latent = False

    def __init__(
        self,
        group_size: int | Literal["row", "tensor"] = "row",
        rank: int = 32,
        alpha: float = 1.0,
        base: Base = "fp32",
    ) -> None:
        super().__init__(group_size)
        self.rank, self.c, self.base = rank, alpha / rank, base
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.scale: nn.Parameter | None = None

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        """Phi(W0/s0): float, bfloat16 or int8[out, in]."""
        check_weight(w, self.group_size)
        if levels is not None:
            check_start(levels, w, self.group_size, shift=False, binary=False)
        w = super().start(w, levels)  # calibrated: so far inside their cells that Phi cannot round them out
        own = slice(0, 1) if self.group_size == "tensor" else slice(None)
        scale = (levels or L2(self.group_size).solve(w)).scale[own].to(w.dtype)
        out, width = w.shape
        self.scale = nn.Parameter(scale)
        self.a = nn.Parameter(w.new_zeros(out, self.rank))
        self.b = nn.Parameter(_small(self.rank, width).to(w))
        x = w.reshape(*scale.shape, -1)
        phi = torch.where(scale[..., None] > 0, x / scale[..., None], 0).reshape(w.shape)
        return _rounded(phi, self.base)

    def forward(self, w: Tensor) -> Tensor:
        values: Tensor = _LowRank.apply(w, self.a, self.b, self.scale, self.c, self.solve(w))  # type: ignore[no-untyped-call]
        if _notes is not None:
            _take_note(values, self, w)
        return values

    @torch.no_grad()
    def solve(self, w: Tensor) -> Levels:
        """Levels for a base as `start` returned it."""
        if self.scale is None or self.a is None or self.b is None:
            raise QuantizeError("the quantizer has no scales yet; call `start` with the weight first")
        check_levels(self.scale, None)
        z = _latent(w, self.a, self.b, self.c)
        if not z.isfinite().all():
            raise QuantizeError("the low-rank change of a weight is not finite; lower the learning rate")
        codes = round_to_levels(z, torch.ones((), dtype=z.dtype, device=z.device))
        rows = len(w) if self.group_size == "tensor" else len(self.scale)
        return Levels.of(codes, self.scale.abs().expand(rows, -1))


class LrQatConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        rank: of what is trained.
        alpha: rank times the factor of A B.
        base: what the frozen weights are kept as.
    """

    name: Literal["lrqat"] = "lrqat"
    rank: int = Field(default=32, ge=1, le=4096)
    alpha: float = Field(default=1.0, gt=0, le=4096)
    base: Base = "fp32"

    def build(self) -> LrQat:
        return LrQat(self.group_size or "row", self.rank, self.alpha, self.base)


def _small(rank: int, width: int) -> Tensor:
    """As B of the paper: uniform within 1/sqrt(width), which is Kaiming's for linear layers."""
    return (torch.rand(rank, width, generator=torch.Generator().manual_seed(0)) * 2 - 1) / math.sqrt(width)


def _rounded(phi: Tensor, base: Base) -> Tensor:
    if base == "int8":
        return (phi.clamp(-2, 127 / FIXED) * FIXED).round().to(torch.int8)
    return phi.bfloat16() if base == "bf16" else phi


class _Note(NamedTuple):
    """How to compute a quantized weight, or a view of it, again."""

    quantizer: LrQat
    base: Tensor
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


_notes: dict[int, tuple[LrQat, Tensor]] | None = None
"""By the address of their values: weights of now that can be computed again. None outside of `recomputed`."""


@contextmanager
def recomputed() -> Iterator[None]:
    """Forward passes within it keep no weight of `lrqat`: backward, inside or outside, computes it again."""
    global _notes
    before, _notes = _notes, {}
    try:
        with torch.autograd.graph.saved_tensors_hooks(_pack, _unpack):
            yield
    finally:
        _notes = before


def _take_note(values: Tensor, quantizer: LrQat, base: Tensor) -> None:
    assert _notes is not None
    address = values.untyped_storage().data_ptr()
    _notes[address] = quantizer, base
    weakref.finalize(values, _notes.pop, address, None)  # the memory will be something else's


def _pack(x: Tensor) -> Tensor | _Note:
    known = None if _notes is None else _notes.get(x.untyped_storage().data_ptr())
    return x if known is None else _Note(*known, x.shape, x.stride(), int(x.storage_offset()))


def _unpack(kept: Tensor | _Note) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    values = kept.quantizer.solve(kept.base).dequantize()
    assert kept.quantizer.a is not None
    return values.to(kept.quantizer.a.dtype).as_strided(kept.size, kept.stride, kept.offset)
