"""`absmean`, BitNet b1.58's rule: alpha = mean |W|, T = clamp(round(W / alpha)), so the threshold is alpha/2."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total

__all__ = ["AbsMean", "AbsMeanConfig"]


class AbsMean(Quantizer):
    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        return total(x.abs()) / x[0].numel(), None


class AbsMeanConfig(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["absmean"] = "absmean"

    def build(self) -> AbsMean:
        return AbsMean(self.group_size or "row")
