"""What calibration keeps of a linear's inputs: a few matrices, summed chunk by chunk.

    H = Xq^T Xq            the Hessian; Xq: inputs that come from the quantized prefix
    C = (Xf - Xq)^T Xq     how the float model's inputs differ
    R = (Sf - Sq)^T Xq     how the residual stream S that the output joins differs, where it does

`corrected` moves the weights towards what the float model computes there: with D = damped H,

    W' = W + (inputs * W C + residual * R) D^-1

the least-squares answer to "W' Xq should be W Xf plus what the residual stream still lacks". Shares below one keep the
weights from chasing errors that later blocks would mend; values are in the recipe. Where there is a residual stream
both parts are summed as one matrix, of the output's height: C would be larger (a down projection's inputs are many).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Statistics", "damped"]

# Of the correction, in units of the mean diagonal: it is noisier than the codes and wants more than they.
DAMPING = 0.05
DAMPINGS = (0.02, 0.05, 0.2, 1.0)  # to choose from
STRIP = 512  # columns of the Hessian summed at a time, from the diagonal on: the other half is their mirror image


class Statistics:
    """Sums for the linears that share an input.

    Args:
        weights: float32[out, in] of each linear, by name.
        inputs, residual: the shares of the way that the weights go, 0..1.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, inputs: float, residual: float) -> None:
        self.weights = weights
        self.shares = inputs, residual
        width = next(iter(weights.values())).shape[1]
        self._upper = torch.zeros(width, width)
        self._inputs = torch.zeros(width, width)
        self._wanted: dict[str, Tensor] = {}
        self._factors: dict[float, Tensor] = {}

    def add(self, quantized: Tensor, original: Tensor, residuals: Mapping[str, Tensor]) -> None:
        """Count a chunk.

        Args:
            quantized, original: the inputs in both models, float32[..., in].
            residuals: Sf - Sq, float32[..., out], for each linear whose output joins the residual stream.
        """
        x, apart = quantized.flatten(0, -2), (original - quantized).flatten(0, -2)
        for begin in range(0, len(self._upper), STRIP):
            self._upper[begin : begin + STRIP, begin:].addmm_(x[:, begin : begin + STRIP].T, x[:, begin:])
        for name, lacking in residuals.items():
            target = (lacking.flatten(0, -2) * self.shares[1]).addmm_(apart, self.weights[name].T, alpha=self.shares[0])
            self._wanted.setdefault(name, torch.zeros_like(self.weights[name])).addmm_(target.T, x)
        if len(residuals) < len(self.weights):
            self._inputs.addmm_(apart.T, x)

    @cached_property
    def hessian(self) -> Tensor:
        """float32[in, in]; asked for when all is counted."""
        return self._upper.triu() + self._upper.triu(1).T

    def _factor(self, damping: float) -> Tensor:
        """Of the damped Hessian, by Cholesky; once for all linears."""
        if damping not in self._factors:
            self._factors[damping] = torch.linalg.cholesky(damped(self.hessian, damping))
        return self._factors[damping]

    def wanted(self, name: str) -> Tensor:
        """(inputs * W C + residual * R) of the linear `name`, float32[out, in]."""
        return self._wanted[name] if name in self._wanted else self.weights[name] @ self._inputs * self.shares[0]

    def corrected(self, name: str, damping: float = DAMPING) -> Tensor:
        """W' of the linear `name`, float32[out, in]."""
        return self.weights[name] + torch.cholesky_solve(self.wanted(name).T, self._factor(damping)).T

    def chosen(self, name: str, unseen: Statistics) -> Tensor:
        """As `corrected`, but `unseen`, of tokens that these sums are not made of, chooses the damping and how far the
        weights go: the correction fits what it was made of better than anything else."""
        weight, wanted, hessian = self.weights[name], unseen.wanted(name), unseen.hessian
        most, best = 0.0, weight
        for damping in DAMPINGS:
            change = self.corrected(name, damping) - weight
            along, across = float((change * wanted).sum()), float(((change @ hessian) * change).sum())
            far = min(max(along / max(across, 1e-30), 0.0), 1.0)
            mended = 2 * far * along - far * far * across  # of the unseen squared error
            if mended > most:
                most, best = mended, weight + change * far
        return best


def damped(hessian: Tensor, damping: float) -> Tensor:
    """The Hessian with `damping` times its mean diagonal added to the diagonal; positive definite."""
    mean = hessian.diagonal().mean().clamp_min(1e-8)
    return hessian + torch.diag_embed((mean * damping).expand(len(hessian)))
