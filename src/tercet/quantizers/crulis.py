"""`crulis`, the layer of Crulis et al. as they train it: the baseline that the other methods are compared with.

    y = clip(s * (T(V) x) + b, -100, 100)      T(v) = [v >= .5] - [v <= -.5]      V = clip(W/m, -1, 1)

m is `kmeans`' level of each row (or group), and what s begins as. V is the latent weight, clipped again after every
step; s is trained. T's gradient is taken for the identity, so

    dL/dV = s * dL/dQ      dL/ds = sum dL/dQ*T      Q = s*T(V)

Their optimizer is SGD with rate 1e-5, on the answers' tokens, the first and last block left in floating point: that is
for a recipe to say. The clip of the outputs is not a weight's: the config's `clip` says what the program that is
trained and packed has to clip them to (`QuantizerConfig.output_clip`).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tercet.quantizers.base import QuantizerConfig
from tercet.quantizers.kmeans import KMeans
from tercet.quantizers.learned import Learned
from tercet.quantizers.levels import Levels

__all__ = ["Crulis", "CrulisConfig"]


class Crulis(Learned):
    """Its latent weight is V, in units of m."""

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        latent = super().start(w, levels)
        assert self.scale is not None
        grouped = latent.reshape(*self.scale.shape, -1)
        m = self.scale[..., None]
        return torch.where(m > 0, grouped / m, 0).clamp_(-1, 1).reshape(w.shape)

    def after_step(self, latent: Tensor) -> None:
        latent.clamp_(-1, 1)

    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        return KMeans().fit(x)

    def codes(self, x: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
        if self.scale is None:  # x is W still
            return super().codes(x, scale, shift)
        return (x >= 0.5).view(torch.int8) - (x <= -0.5).view(torch.int8)

    def passing(self, w: Tensor, levels: Levels) -> Tensor:  # noqa: ARG002
        assert self.scale is not None
        return self.scale.detach().abs()[..., None]


class CrulisConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        clip: outputs of the layer, bias included, are clipped to -clip..clip; None: they are not.
    """

    name: Literal["crulis"] = "crulis"
    clip: float | None = Field(default=100.0, gt=0, le=65504)

    @property
    def output_clip(self) -> float | None:
        return self.clip

    def build(self) -> Crulis:
        return Crulis(self.group_size or "row")
