"""What calibration keeps of a linear's inputs: two or three matrices, summed chunk by chunk.

    H = Xq^T Xq            the Hessian; Xq: inputs that come from the quantized prefix
    C = (Xf - Xq)^T Xq     how the float model's inputs differ
    R = (Sf - Sq)^T Xq     how the residual stream S that the output joins differs, where it does

`corrected` moves the weights towards what the float model computes there: with D = damped H,

    W' = W + (input * W C + residual * R) D^-1

the least-squares answer to "W' Xq should be W Xf plus what the residual stream still lacks". Shares below one keep the
weights from chasing errors that later blocks would mend; values are in the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["Statistics", "damped"]


class Statistics:
    """Sums for the linears that share an input.

    Attributes:
        hessian: float32[in, in].
        inputs: C, float32[in, in].
        residuals: R of each linear whose output joins the residual stream, float32[out, in], by name.
    """

    def __init__(self, width: int) -> None:
        self.hessian = torch.zeros(width, width)
        self.inputs = torch.zeros(width, width)
        self.residuals: dict[str, Tensor] = {}

    def add(self, quantized: Tensor, original: Tensor, residuals: Mapping[str, Tensor]) -> None:
        """Count a chunk: inputs float32[windows, tokens, in] of both models, and Sf - Sq by linear."""
        x = quantized.flatten(0, -2)
        self.hessian.addmm_(x.T, x)
        self.inputs.addmm_((original.flatten(0, -2) - x).T, x)
        for name, lacking in residuals.items():
            joined = lacking.flatten(0, -2).T @ x
            self.residuals[name] = self.residuals[name].add_(joined) if name in self.residuals else joined

    def corrected(self, name: str, weight: Tensor, *, inputs: float, residual: float, damping: float) -> Tensor:
        """W' of float32[out, in]; `inputs` and `residual` are the shares of the way to go, 0..1."""
        wanted = weight @ self.inputs * inputs
        if name in self.residuals:
            wanted += self.residuals[name] * residual
        factor = torch.linalg.cholesky(damped(self.hessian, damping))
        return weight + torch.cholesky_solve(wanted.T, factor).T


def damped(hessian: Tensor, damping: float) -> Tensor:
    """The Hessian with `damping` times its mean diagonal added to the diagonal; positive definite."""
    mean = hessian.diagonal().mean().clamp_min(1e-8)
    return hessian + torch.diag_embed((mean * damping).expand(len(hessian)))
