"""`twn`, Ternary Weight Networks: Delta = 0.7 * mean |W|, T = sign(W) where |W| > Delta, alpha = mean |W| over those.

The one rule here whose threshold is not half its scale: T does not follow from alpha, so `codes` finds Delta again.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total

__all__ = ["Twn", "TwnConfig"]


class Twn(Quantizer):
    """Args: threshold: Delta in units of mean |W|; the paper has 0.7, later work also 0.75."""

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", threshold: float = 0.7) -> None:
        super().__init__(group_size)
        self.threshold = threshold

    def delta(self, x: Tensor) -> Tensor:
        return total(x.abs()) * (self.threshold / x[0].numel())

    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        mask = x.abs() > self.delta(x)
        return total(x.abs() * mask) / total(mask).clamp(min=1), None

    def codes(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:  # noqa: ARG002
        delta = self.delta(x)
        return (x > delta).view(torch.int8) - (x < -delta).view(torch.int8)


class TwnConfig(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["twn"] = "twn"
    threshold: float = Field(default=0.7, gt=0, lt=2)

    def build(self) -> Twn:
        return Twn(self.group_size or "row", self.threshold)
