"""4-bit integers of a table: for each group the scale that fits best, for a head error feedback as for ternary codes.

    scale   of the candidates f * amax / 7, the one whose rounding errors weigh least
    codes   nearest; with a Hessian, column after column, those still to come making up for each error (GPTQ)

An error of column j weighs D_jj of the Hessian, or one. Rows stand for themselves, so a large table goes in pieces.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.calibrate.feedback import BLOCK
from tercet.errors import QuantizeError
from tercet.tensor import IntTensor

__all__ = ["fitted_integers"]

SHRINK = torch.linspace(0.70, 1.0, 16)
ROWS = 4096
LOW, HIGH = -8, 7
SMALLEST = 1e-12  # of what is divided by: a group of zeros has the scale 0


def fitted_integers(weight: NDArray[np.float32], group: int, hessian: Tensor | None = None) -> IntTensor:
    """The integers of a matrix.

    Args:
        weight: float32[out, in], finite.
        group: input columns that share a scale.
        hessian: float32[in, in] of the inputs, damped; None for a table whose rows are looked up.

    Raises QuantizeError where a value is too large for float16 scales.
    """
    if np.abs(weight).max(initial=0) / HIGH > 65504:
        raise QuantizeError("weight has values too large for float16 scales; keep it as float32")
    weights = torch.ones(weight.shape[1]) if hessian is None else hessian.diagonal()
    feedback = None if hessian is None else _feedback(hessian)
    codes, scales = [], []
    for rows in torch.from_numpy(weight).split(ROWS):  # type: ignore[no-untyped-call]
        scale = _scales(rows, weights, group)
        each = scale.repeat_interleave(group, dim=1).clamp_min(SMALLEST)
        code = _nearest(rows, each) if feedback is None else _fed_back(rows, each, *feedback)
        codes.append(code.to(torch.int8).numpy())
        scales.append(scale.half().numpy())
    return IntTensor(np.concatenate(codes), 4, np.concatenate(scales))


def _nearest(values: Tensor, scale: Tensor) -> Tensor:
    return (values / scale).round_().clamp_(LOW, HIGH)


def _scales(rows: Tensor, weights: Tensor, group: int) -> Tensor:
    """[rows, groups], values of float16."""
    parts = rows.reshape(len(rows), -1, group)
    weighed = weights.reshape(-1, group)
    amax = parts.abs().amax(2)
    best = torch.full_like(amax, torch.inf)
    chosen = torch.zeros_like(amax)
    for shrink in SHRINK:
        scale = (amax * (shrink / HIGH)).half().float()
        each = scale.clamp_min(SMALLEST)[..., None]
        error = ((_nearest(parts, each) * each - parts).square_() * weighed).sum(2)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, scale, chosen)
    return chosen


def _feedback(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, and the upper Cholesky factor of the inverse in that order."""
    order = hessian.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _fed_back(rows: Tensor, scale: Tensor, order: Tensor, factor: Tensor) -> Tensor:
    """Codes [rows, in] as floats; scale [rows, in]."""
    left, each = rows.T[order], scale.T[order]
    codes = torch.empty_like(left)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = torch.empty_like(left[begin:end])
        for j in range(begin, end):
            codes[j] = _nearest(left[j], each[j])
            error = torch.addcmul(left[j], codes[j], each[j], value=-1, out=errors[j - begin]).div_(factor[j, j])
            left[j + 1 : end].addr_(factor[j, j + 1 : end], error, alpha=-1)
        left[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return codes[order.argsort()].T
