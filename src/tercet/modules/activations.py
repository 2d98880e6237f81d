"""Training with the activations that the engine computes with: each linear's input, quantized, straight through.

    a8   sx = amax/127, rint(x * 127/amax)       for each token and activation group: the engine's own arithmetic
    a4   the same with 7
    ternary   T * mean|x| over |x| > 0.7 mean|x|   (TWN's rule)

A group is as wide as the weight's group of input columns, or the whole width for scales per row or tensor: the engine
has one scale where they have. Inputs that several linears share are quantized once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tercet.recipe import Activations

__all__ = ["Shared", "quantized"]

LARGEST = {"a8": 127, "a4": 7}


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: Activations, group: int) -> Tensor:  # noqa: ARG004
        return quantized(x, kind, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ARG004
        return grads[0], None, None


def quantized(x: Tensor, kind: Activations, group: int) -> Tensor:
    """x as the engine's linears see it, float32[..., width]; float64 where x is.

    Args:
        x: [..., width].
        kind: one of `Activations`; a16 is x itself.
        group: columns that share a scale; a divisor of the width.
    """
    if kind == "a16":
        return x
    exact = x if x.dtype == torch.float64 else x.float()
    grouped = exact.reshape(*x.shape[:-1], -1, group)
    if kind == "ternary":
        size = grouped.abs()
        kept = size > 0.7 * size.mean(-1, keepdim=True)
        scale = (size * kept).sum(-1, keepdim=True) / kept.sum(-1, keepdim=True).clamp(min=1)
        return (grouped.sign() * kept * scale).flatten(-2)
    largest = LARGEST[kind]
    amax = torch.maximum(grouped.amax(-1, keepdim=True), -grouped.amin(-1, keepdim=True))  # no copy of |x|
    inverse = largest / amax
    usable = inverse.isfinite()  # not where all is 0, or so small that the engine takes it for 0
    return (grouped * inverse.where(usable, 0.0)).round_().mul_((amax / largest).where(usable, 0.0)).flatten(-2)


class Shared:
    """The last input quantized, so that q, k and v (gate and up) do it once; straight through going back."""

    def __init__(self, kind: Activations) -> None:
        self.kind = kind
        self.held: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, x: Tensor, group: int) -> Tensor:
        if self.held is None or self.held[0] is not x or self.held[1] != group:
            result: Tensor = _Quantize.apply(x, self.kind, group)  # type: ignore[no-untyped-call]
            self.held = x, group, result
        return self.held[2]

    def forget(self) -> None:
        self.held = None
