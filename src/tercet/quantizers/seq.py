"""`seq`, stretched elastic quantization of ParetoQ (Liu et al. 2025, arXiv 2502.02631), and its elastic binarization.

    ternary   Q = a * round(1.5 * clip(W/a, -.99, .99)) / 1.5      levels -2a/3, 0, 2a/3; thresholds a/3
    binary    Q = a * sign(W)

with a trained by the gradients of Learned Step Size Quantization, v = W/a and n the weights of the whole matrix:

    ternary   dL/dW = dL/dQ where |v| < .99, else 0
              dL/da = 1/sqrt(n) * sum dL/dQ * (Q/a - v where |v| < .99, else sign(v))
    binary    dL/dW = dL/dQ where |v| <= 1, else 0        dL/da = 1/sqrt(n) * sum dL/dQ * sign(W)

The 1 (not 2/3) that clipped weights give to dL/da, the binary mask and the factor are those of the authors' code
(facebookresearch/ParetoQ, models/utils_quant.py). Its thresholds lie half-way between the levels, so the codes are
`learned`'s; `scale` is what is stored: 2a/3, binary a.

It begins as `l2` (binary: mean |W|). The authors begin with a = max |W|, meant for tens of billions of tokens: that
makes 64 to 99 % of a pretrained model's weights zeros.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from tercet.quantizers.base import QuantizerConfig
from tercet.quantizers.learned import Learned
from tercet.quantizers.levels import Levels

__all__ = ["Seq", "SeqConfig"]

CLIP = 0.99
SMALLEST = 1e-5  # that W is divided by, as in the authors' code


class _Elastic(torch.autograd.Function):
    """The gradients of the module's docstring, for scale in place of a; keeps codes, and w, which is there anyway."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, levels: Levels, binary: bool) -> Tensor:
        ctx.save_for_backward(w, scale, levels.codes)
        ctx.binary = binary
        return levels.dequantize().to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        w, scale, codes = ctx.saved_tensors
        g = grads[0].reshape(*scale.shape, -1)
        codes = codes.reshape(g.shape)
        step = scale.abs().half().to(scale.dtype).clamp_min(SMALLEST)[..., None]
        v = w.reshape(g.shape) / step  # in units of the stored scale
        if ctx.binary:
            inside = v.abs() <= 1
            towards = g * codes
        else:
            inside = v.abs() < 1.5 * CLIP
            towards = g * torch.where(inside, codes - v, v.sign() * 1.5)
        towards = towards.sum(-1, dtype=scale.dtype) * scale.sign() * w.numel() ** -0.5
        return (g * inside).reshape(w.shape), towards, None, None


class Seq(Learned):
    """Args: binary: elastic binarization."""

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", binary: bool = False) -> None:
        super().__init__(group_size, binary=binary)

    def forward(self, w: Tensor) -> Tensor:
        levels = self.solve(w)
        values: Tensor = _Elastic.apply(w, self.scale, levels, self.binary)  # type: ignore[no-untyped-call]
        return values


class SeqConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        binary: two levels.
    """

    name: Literal["seq"] = "seq"
    binary: bool = False

    @property
    def two_levels(self) -> bool:
        return self.binary

    def build(self) -> Seq:
        return Seq(self.group_size or "row", self.binary)
