"""`absmean2`, TernaryCLIP's rule as its authors' later code has it: alpha = 2 * mean |W|, threshold mean |W|.

It zeroes 58-60 % of normally distributed weights, where `absmean` zeroes 31 %.

Nothing of it is trained but the weights, so calibrated levels have to be in them: it begins with weights that have the
calibrated codes and mean |W| = alpha/2, which give the codes and the scale by this very rule. Distances from the
threshold are those of `nearest_latent`, shrunk on the side that is ahead until both balance. (A group without a zero
cannot have them, as some weights lie below their mean. It begins with the nearest weights.)
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total, units
from tercet.quantizers.levels import Levels

__all__ = ["AbsMean2", "AbsMean2Config"]


class AbsMean2(Quantizer):
    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        latent = super().start(w, levels)
        if levels is None:
            return latent
        own = slice(0, 1) if self.group_size == "tensor" else slice(None)
        halves = levels.scale[own].to(latent.dtype).reshape(-1, 1, 1) / 2
        found = []
        for x, codes in zip(units(latent, self.group_size), units(levels.codes, self.group_size), strict=True):
            half, halves = halves[: len(x)], halves[len(x) :]
            found.append(torch.copysign(_balanced(x.abs(), codes == 0, half), x))
        return torch.cat(found).reshape(w.shape)

    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        return total(x.abs()) * (2 / x[0].numel()), None


class AbsMean2Config(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["absmean2"] = "absmean2"

    def build(self) -> AbsMean2:
        return AbsMean2(self.group_size or "row")


def _balanced(size: Tensor, zero: Tensor, half: Tensor) -> Tensor:
    """Sizes [units, rows, columns] on the same side of `half` as they are, whose mean it is."""
    apart = size - half
    below, above = -total(apart * zero), total(apart * ~zero)
    shrunk = torch.where(zero, apart * (above / below).clamp(max=1), apart * (below / above).clamp(max=1))
    return torch.where(
        zero.all((1, 2), keepdim=True), half.expand_as(size), torch.where(below > 0, half + shrunk, size)
    )
