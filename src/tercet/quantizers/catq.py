"""`catq`, CAT-Q (Wang et al. 2026, arXiv 2606.26650): three trained factors a group, and ternary by degrees.

    a0 = mean |W - mean W|     mu = mean W + d_mu*a0     alpha = d_a*a0     Delta = d_D/2
    d_mu = 2 sigmoid(.) - 1    d_a, d_D = 2 sigmoid(.)   all begin at 0 or 1

    Q = alpha*T(w), w = (W - mu)/alpha          mu moves the thresholds only; it is not added again
    soft   T = (tanh(s(w - Delta)) + tanh(s(w + Delta))) / (2 tanh s)
    hard   T = -1, 0, 1: |w| > Delta

`schedule` takes s from 0.01, where T is a straight line, to 30 at 80 % of training; the rest is hard. The soft T has a
gradient of its own. The hard one is read as clamp(round(w/(2 Delta)), -1, 1), as the authors' code writes it, with the
gradient of `round` taken for the identity. Everything else, a0 and mean W too, is differentiated.

Not verified, as the authors' training code is not public: how s rises (their settings have an exponent `phi_x_n: 3`,
taken for that of the share of training done) and the hard gradient. They train low-rank changes of W; here W itself is.

Law 1 holds once hard. A quantizer that was never told a progress is hard; `freeze` raises while it is soft, as the
hard codes are not what training saw. `solve` gives them at any time, to count zeros for instance.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from tercet.errors import QuantizeError
from tercet.quantizers.base import Quantizer, QuantizerConfig, total, units
from tercet.quantizers.levels import Levels, check_levels, check_start, check_weight
from tercet.tensor import TernaryTensor

__all__ = ["CatQ", "CatQConfig"]

SOFTEST, SHARPEST = 0.01, 30.0
SOFT_UNTIL = 0.8  # of training
FLOOR = 1e-6  # added to a0, as in the authors' code
FARTHEST = 0.99  # of the way that a factor can go: as far as a start goes
REACH = 1.8  # d_a that a start prefers not to exceed: near 2 the sigmoid hardly moves


class _Modulated(NamedTuple):
    """W's groups [units, rows, columns] and what the factors make of them [units, 1, 1]."""

    centred: Tensor
    a0: Tensor
    d_mu: Tensor
    d_alpha: Tensor
    d_delta: Tensor

    @property
    def alpha(self) -> Tensor:
        return self.d_alpha * self.a0

    @property
    def level(self) -> Tensor:
        """alpha as it is stored."""
        return self.alpha.half().to(self.a0.dtype)

    @property
    def delta(self) -> Tensor:
        return self.d_delta / 2

    @property
    def w(self) -> Tensor:
        return (self.centred - self.d_mu * self.a0) / self.alpha

    def codes(self) -> Tensor:
        w, delta = self.w, self.delta
        return (w > delta).view(torch.int8) - (w < -delta).view(torch.int8)


def _modulate(x: Tensor, factors: Tensor) -> _Modulated:
    """x: [units, rows, columns]; factors: [3, units, 1, 1], of mu, alpha and Delta."""
    centred = x - (total(x) / x[0].numel()).to(x.dtype)
    a0 = (total(centred.abs()) / x[0].numel() + FLOOR).to(x.dtype)
    sigmoid = factors.to(x.dtype).sigmoid() * 2
    return _Modulated(centred, a0, sigmoid[0] - 1, sigmoid[1], sigmoid[2])


def _soft(w: Tensor, delta: Tensor, sharpness: float) -> tuple[Tensor, Tensor, Tensor]:
    """T, dT/dw and dT/dDelta."""
    below, above = torch.tanh(sharpness * (w - delta)), torch.tanh(sharpness * (w + delta))
    norm = 2 * math.tanh(sharpness)
    left, right = 1 - below.square(), 1 - above.square()
    rate = sharpness / norm
    return (below + above) / norm, (left + right) * rate, (right - left) * rate


def _hard(m: _Modulated) -> tuple[Tensor, Tensor, Tensor]:
    u = m.w / (2 * m.delta)
    inside = u.abs() < 1.5  # what rounds to a code without being clamped
    return m.codes().to(u.dtype), inside / (2 * m.delta), -u / m.delta * inside


class _Transition(torch.autograd.Function):
    """alpha*T with all gradients; keeps w and the factors, and computes the rest again."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, factors: Tensor, hard: Levels | None, sharpness: float, group_size: int | str
    ) -> Tensor:
        ctx.save_for_backward(w, factors)
        ctx.settings = hard is None, sharpness, group_size
        if hard is not None:
            return hard.dequantize().to(w.dtype)
        values = []
        for x, factor in _parts(w, factors, group_size):
            m = _modulate(x, factor)
            values.append(m.level * _soft(m.w, m.delta, sharpness)[0])
        return torch.cat(values).reshape(w.shape).to(w.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        w, factors = ctx.saved_tensors
        soft, sharpness, group_size = ctx.settings
        latents, moved = [], []
        for (x, factor), g in zip(_parts(w, factors, group_size), units(grads[0], group_size), strict=True):
            m = _modulate(x, factor)
            slopes = _soft(m.w, m.delta, sharpness) if soft else _hard(m)
            latent, of_factors = _backward(m, *slopes, g.to(x.dtype))
            latents.append(latent)
            moved.append(of_factors)
        of_factors = torch.cat(moved, dim=1).reshape(factors.shape).to(factors.dtype)
        return torch.cat(latents).reshape(w.shape).to(w.dtype), of_factors, None, None, None


def _parts(w: Tensor, factors: Tensor, group_size: int | str) -> list[tuple[Tensor, Tensor]]:
    """Groups of w in float32 or wider, a few at a time, with their factors [3, units, 1, 1]."""
    x = w.detach()
    chunks = units(x if x.dtype == torch.float64 else x.float(), group_size)
    sizes = [len(chunk) for chunk in chunks]
    return list(zip(chunks, torch.split(factors.detach().reshape(3, -1, 1, 1), sizes, dim=1), strict=True))


def _backward(m: _Modulated, t: Tensor, by_w: Tensor, by_delta: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of W [units, rows, columns] and of the three factors [3, units, 1, 1]."""
    n, level = m.centred[0].numel(), m.level

    def summed(x: Tensor) -> Tensor:
        return x.sum((-2, -1), keepdim=True)

    along = g * by_w * (level / m.alpha)  # what reaches W - mu
    to_mu = -summed(along)
    to_alpha = summed(g * t) - summed(along * m.w)
    to_delta = level * summed(g * by_delta)
    to_a0 = to_mu * m.d_mu + to_alpha * m.d_alpha
    sign = m.centred.sign()
    latent = along + (to_mu + to_a0 * (sign - summed(sign) / n)) / n
    slope = torch.stack([1 - m.d_mu.square(), m.d_alpha * (2 - m.d_alpha), m.d_delta * (2 - m.d_delta)]) / 2
    return latent, torch.stack([to_mu * m.a0, to_alpha * m.a0, to_delta / 2]) * slope


class CatQ(Quantizer):
    """Attributes: factors: float32[3, out, groups] of mu, alpha and Delta, before the sigmoid; made by `start`.
    [3, 1, 1] where the whole tensor shares them.

    Args:
        power: s rises with the share of the soft part that is done, to this power.
    """

    def __init__(self, group_size: int | Literal["row", "tensor"] = "row", power: float = 3.0) -> None:
        super().__init__(group_size)
        self.power = power
        self.sharpness: float | None = None  # None: hard
        self.factors: nn.Parameter | None = None

    @torch.no_grad()
    def start(self, w: Tensor, levels: Levels | None = None) -> Tensor:
        """See the base. A calibrated scale beyond 1.8*a0 is reached by wider weights and thresholds (beyond 3.8*a0, or
        where |mean W| > a0, only nearly).
        """
        check_weight(w, self.group_size)
        groups = w.shape[1] // self.group_size if isinstance(self.group_size, int) else 1
        rows = 1 if self.group_size == "tensor" else len(w)
        latent = super().start(w, levels)
        factors = torch.zeros(3, rows, groups, dtype=latent.dtype, device=latent.device)
        if levels is not None:
            check_start(levels, w, self.group_size, shift=False, binary=False)
            latent, factors = self._reaching(latent, factors, levels.scale[:rows].to(latent.dtype))
        self.factors = nn.Parameter(factors)
        return latent

    def _reaching(self, latent: Tensor, factors: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The latent weight and factors with mu = 0, alpha = scale and the codes that nearest levels have."""
        latents, found = [], []
        wanted = scale.reshape(-1, 1, 1)
        for x, zeros in _parts(latent, factors, self.group_size):
            s, wanted = wanted[: len(x)], wanted[len(x) :]
            m = _modulate(x, zeros)
            wider = (s / (REACH * m.a0)).clamp(1, 1 + FARTHEST)
            a0 = m.a0 * wider
            d_mu = (m.centred - x).mean((1, 2), keepdim=True) / m.a0
            d_alpha = (s / a0).clamp(1 - FARTHEST, 1 + FARTHEST)
            d_delta = wider * s / (d_alpha * a0)
            latents.append(x * wider)
            factor = torch.stack([1 + d_mu, d_alpha, d_delta])
            found.append(factor.clamp(1 - FARTHEST, 1 + FARTHEST).div(2).logit())
        return torch.cat(latents).reshape(latent.shape), torch.cat(found, dim=1).reshape(factors.shape)

    def schedule(self, progress: float) -> None:
        share = progress / SOFT_UNTIL
        self.sharpness = SOFTEST + (SHARPEST - SOFTEST) * share**self.power if share < 1 else None

    def forward(self, w: Tensor) -> Tensor:
        if self.sharpness is None:
            hard = self.solve(w)
        else:
            hard = None
            check_weight(w, self.group_size)
        with torch.autocast(w.device.type, enabled=False):
            values: Tensor = _Transition.apply(  # type: ignore[no-untyped-call]
                w, self._started(), hard, self.sharpness, self.group_size
            )
        return values

    def freeze(self, w: Tensor) -> TernaryTensor:
        """See the base. Raises QuantizeError while soft."""
        if self.sharpness is not None:
            raise QuantizeError(
                f"catq is soft until {SOFT_UNTIL:.0%} of training; train on, or harden it by schedule(1.0) and evaluate"
            )
        return super().freeze(w)

    @torch.no_grad()
    def solve(self, w: Tensor) -> Levels:
        """The hard levels, soft or not."""
        check_weight(w, self.group_size)
        with torch.autocast(w.device.type, enabled=False):
            parts = [_modulate(x, factor) for x, factor in _parts(w.float(), self._started(), self.group_size)]
            codes = torch.cat([m.codes() for m in parts])
            scale = torch.cat([m.alpha for m in parts])
        check_levels(scale, None)
        return Levels.of(codes.reshape(w.shape), self._per_row(scale, len(w)))

    def _started(self) -> Tensor:
        if self.factors is None:
            raise QuantizeError("the quantizer has no factors yet; call `start` with the weight first")
        return self.factors


class CatQConfig(QuantizerConfig, frozen=True):
    """See the module.

    Attributes:
        power: of the soft part's share that is done, by which s rises.
    """

    name: Literal["catq"] = "catq"
    power: float = Field(default=3.0, gt=0, le=10)

    def build(self) -> CatQ:
        return CatQ(self.group_size or "row", self.power)
