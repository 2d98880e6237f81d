"""`dlt`, Dual Learnable Ternarization of TernaryLLM (Chen et al. 2024, arXiv 2406.07177): scale and shift are trained.

    Q = alpha*T + gamma      T = 1 where W > Delta, -1 where W < -Delta, else 0      Delta = 0.7 * mean |W|

    dL/dalpha = sum dL/dQ*T      dL/dgamma = sum dL/dQ      both over the group

T follows from W alone: neither alpha nor gamma moves a threshold. alpha begins as `twn`'s, gamma as 0. What passes to W
is not verified, the paper's text was not at hand: `gradient` is

    identity   dL/dW = dL/dQ
    masked     the same where |W - gamma| <= alpha, 0 beyond the outer levels
    scaled     alpha * dL/dQ where T is not 0, dL/dQ where it is, as in Trained Ternary Quantization

From calibrated codes it begins with weights near the pretrained ones that have them by this rule, well inside the
thresholds, and none smaller than an eighth of the scale where the code is not 0. Delta depends on those weights, but
moves by at most 14/15 of what it was moved by, so rounds find both.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tercet.quantizers.base import QuantizerConfig
from tercet.quantizers.learned import Learned
from tercet.quantizers.levels import Levels
from tercet.quantizers.twn import Twn

__all__ = ["Dlt", "DltConfig"]

Gradient = Literal["identity", "masked", "scaled"]
RULE = Twn()  # its Delta and T do not depend on its groups
INSIDE = 1 / 3  # of Delta: how far from it calibrated weights begin; from 3/7 on rounds might not end
ROUNDS = 60  # (0.7 * 4/3)^60 is far less than INSIDE


class Dlt(Learned):
    """Args: gradient: what passes to the weights, see the module."""

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", gradient: Gradient = "identity") -> None:
        super().__init__(group_size, with_shift=True)
        self.gradient = gradient

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        latent = super().start(w, levels)
        return latent if levels is None else self._latent(w.detach().to(latent.dtype), levels.codes)

    def fit(self, x: Tensor) -> tuple[Tensor, Tensor]:
        alpha, _ = RULE.fit(x)
        return alpha, torch.zeros_like(alpha)

    def codes(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        return RULE.codes(x.reshape(-1, 1, x.shape[-1]), scale, shift).reshape(x.shape)

    def passing(self, w: Tensor, levels: Levels) -> Tensor | None:
        if self.gradient == "identity":
            return None
        assert self.scale is not None
        assert self.shift is not None
        x = w.reshape(*self.scale.shape, -1)
        scale = self.scale.detach().abs()[..., None]
        if self.gradient == "masked":
            return (x - self.shift.detach()[..., None]).abs() <= scale
        return torch.where(levels.codes.reshape(x.shape) == 0, 1, scale)

    def _latent(self, w: Tensor, codes: Tensor) -> Tensor:
        """A matrix near w whose codes are `codes`; groups of zeros only are zero."""
        assert self.scale is not None
        x = w.reshape(-1, 1, w.numel() // self.scale.numel())
        # Where few codes are not zero, threshold and weights would shrink each other to nothing, round by round.
        least = self.scale.abs().reshape(-1, 1, 1).to(x.dtype) / 8
        codes = codes.reshape(x.shape)
        sign = codes.to(x.dtype)
        bounded = x
        for _ in range(ROUNDS):
            delta = RULE.delta(bounded).to(x.dtype)
            kept = x.clamp(-delta * (1 - INSIDE), delta * (1 - INSIDE))
            outside = (x * sign).maximum(delta * (1 + INSIDE)).maximum(least)
            bounded = torch.where(codes == 0, kept, sign * outside)
        return torch.where(codes.any(-1, keepdim=True), bounded, 0).reshape(w.shape)


class DltConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        gradient: what passes to the weights.
    """

    name: Literal["dlt"] = "dlt"
    gradient: Gradient = "identity"

    def build(self) -> Dlt:
        return Dlt(self.group_size or "row", self.gradient)
