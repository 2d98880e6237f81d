"""`itf`, PT2-LLM's iterative fit with a shift: W ~ alpha*T + gamma, in turns.

    alpha = (n*sum(TW) - sum(T)*sum(W)) / (n*sum(T^2) - sum(T)^2)        least squares for a given T
    gamma = (sum(T^2)*sum(W) - sum(T)*sum(TW)) / (same)
    T     = the nearest of gamma - alpha, gamma, gamma + alpha

from TWN's T around gamma = mean W, until no T changes or `rounds` have passed. No turn raises the loss. Where all T are
equal the fit has no unique answer (the divisor is 0): alpha = 0, T = 0, gamma = mean W. The sums run over W - mean W,
which gives the same alpha and keeps the differences above from cancelling.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig, total
from tercet.quantizers.levels import round_to_levels

__all__ = ["Itf", "ItfConfig"]


class Itf(Quantizer):
    """Args: rounds: the most turns taken; about 10 are enough."""

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", rounds: int = 10) -> None:
        super().__init__(group_size)
        self.rounds = rounds

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = total(x) / x[0].numel()
        centred = x - mean
        delta = total(centred.abs()) * (0.7 / x[0].numel())
        codes = round_to_levels(centred, 2 * delta)
        alpha, gamma = _least_squares(centred, codes)
        for _ in range(self.rounds - 1):
            last, codes = codes, round_to_levels(centred, alpha, gamma)
            if torch.equal(last, codes):
                break
            alpha, gamma = _least_squares(centred, codes)
        return alpha, mean + gamma


class ItfConfig(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["itf"] = "itf"
    rounds: int = Field(default=10, ge=1, le=1000)

    def build(self) -> Itf:
        return Itf(self.group_size or "row", self.rounds)


def _least_squares(x: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and gamma, float32[units, 1, 1], that are best for the codes.

    The nearest codes never fall as W rises, so alpha >= 0; the clamp only takes off what rounding may leave below.
    """
    n = x[0].numel()
    t1, t2 = total(codes), total(codes.abs())
    w1, tw = total(x).double(), total(x * codes).double()
    divisor = n * t2.double() - t1.double().square()
    regular = divisor > 0
    divisor = torch.where(regular, divisor, 1)
    alpha = torch.where(regular, (n * tw - t1 * w1) / divisor, 0).clamp(min=0)
    gamma = torch.where(regular, (t2 * w1 - t1 * tw) / divisor, w1 / n)
    return alpha.float(), gamma.float()
