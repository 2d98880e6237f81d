"""`kmeans`, the rule of Crulis et al.: one-dimensional Lloyd iterations with the tied centres -m, 0, +m.

    m = mean |W|;  repeat:  m = mean |W| over |W| > m/2        alpha = m, T = the nearest centre

No step raises the loss sum (W - m*T)^2; three come within 0.25 % of `l2`'s optimum. `kmeans_history` is the paper's
figure of the error by iteration.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total, units
from tercet.quantizers.levels import check_weight

__all__ = ["KMeans", "KMeansConfig", "kmeans_history"]


class KMeans(Quantizer):
    """Args: iterations: Lloyd steps after m = mean |W|; they end early where no m moves."""

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", iterations: int = 10) -> None:
        super().__init__(group_size)
        self.iterations = iterations

    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        magnitude = x.abs()
        m = total(magnitude) / x[0].numel()
        for _ in range(self.iterations):
            last, m = m, _step(magnitude, m)
            if torch.equal(last, m):
                break
        return m, None


class KMeansConfig(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["kmeans"] = "kmeans"
    iterations: int = Field(default=10, ge=0, le=1000)

    def build(self) -> KMeans:
        return KMeans(self.group_size or "row", self.iterations)


@torch.no_grad()
def kmeans_history(
    w: Tensor, group_size: int | Literal["row", "tensor"] = "row", iterations: int = 10
) -> list[tuple[float, float]]:
    """The loss sum (W - m*T)^2, and the same over sum W^2, after 0, 1, ... `iterations` Lloyd steps.

    Args:
        w: [out, in]. m is not rounded to float16 here. All-zero weights have the relative error 0.
    """
    check_weight(w, group_size)
    losses = [0.0] * (iterations + 1)
    power = 0.0
    for chunk in units(w.detach().float(), group_size):
        magnitude = chunk.abs()
        power += float(magnitude.double().square().sum())
        m = total(magnitude) / chunk[0].numel()
        for index in range(iterations + 1):
            error = torch.where(magnitude > m / 2, magnitude - m, magnitude)
            losses[index] += float(error.double().square().sum())
            m = _step(magnitude, m)
    return [(loss, loss / power if power else 0.0) for loss in losses]


def _step(magnitude: Tensor, m: Tensor) -> Tensor:
    """The mean of what lies nearer to m than to 0. Some does, as m is a mean itself, unless all are 0."""
    mask = magnitude > m / 2
    return total(magnitude * mask) / total(mask).clamp(min=1)
