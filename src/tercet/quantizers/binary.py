"""`binary`, two levels a weight: T = sign(W) (of 0: +1) and alpha = mean |W|, the best alpha for these T.

`zero_one` has the levels 0 and a instead: a = mean W over W > a/2, iterated as in `kmeans` from the mean of all
W > 0. Stored with the same codes in {-1, 1}: scale = shift = a/2. It halves what a weight can say; a baseline.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total

__all__ = ["Binary", "BinaryConfig"]

STEPS = 10


class Binary(Quantizer):
    """Args: zero_one: levels {0, a} instead of {-a, a}."""

    binary = True

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", zero_one: bool = False) -> None:
        super().__init__(group_size)
        self.zero_one = zero_one

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if not self.zero_one:
            return total(x.abs()) / x[0].numel(), None
        a = torch.zeros(len(x), 1, 1, device=x.device)
        for _ in range(STEPS):
            mask = x > a / 2
            a = total(x * mask) / total(mask).clamp(min=1)
        return a / 2, a / 2


class BinaryConfig(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["binary"] = "binary"
    zero_one: bool = False

    @property
    def two_levels(self) -> bool:
        return True

    def build(self) -> Binary:
        return Binary(self.group_size or "row", self.zero_one)
