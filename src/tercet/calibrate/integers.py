"""Integers of a table: a scale of each group that fits best, and for a head error feedback as for ternary codes.

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
from tercet.tensor import IntTensor

__all__ = ["fitted_integers"]

SHRINK = torch.linspace(0.70, 1.0, 16)
ROWS = 4096


def fitted_integers(weight: NDArray[np.float32], bits: int, group: int, hessian: Tensor | None = None) -> IntTensor:
    """The integers of a matrix.

    Args:
        weight: float32[out, in], finite.
        bits: 4 or 8.
        group: input columns that share a scale.
        hessian: float32[in, in] of the inputs, damped; None for a table whose rows are looked up.

    Raises QuantizeError as IntTensor does.
    """
    low, high = (-8, 7) if bits == 4 else (-127, 127)
    weights = torch.ones(weight.shape[1]) if hessian is None else hessian.diagonal()
    order, factor = _feedback(hessian) if hessian is not None else (None, None)
    codes, scales = [], []
    for rows in torch.from_numpy(weight).split(ROWS):  # type: ignore[no-untyped-call]
        scale = _scales(rows, weights, group, low, high)
        each = scale.repeat_interleave(group, dim=1).clamp_min(1e-12)
        if order is None or factor is None:
            code = (rows / each).round_().clamp_(low, high)
        else:
            code = _fed_back(rows, each, order, factor, (low, high))
        codes.append(code.to(torch.int8).numpy())
        scales.append(scale.half().numpy())
    return IntTensor(np.concatenate(codes), bits, np.concatenate(scales))


def _scales(rows: Tensor, weights: Tensor, group: int, low: int, high: int) -> Tensor:
    """[rows, groups], values of float16."""
    parts = rows.reshape(len(rows), -1, group)
    weighed = weights.reshape(-1, group)
    amax = parts.abs().amax(2)
    best = torch.full_like(amax, torch.inf)
    chosen = torch.zeros_like(amax)
    for shrink in SHRINK:
        scale = (amax * (shrink / high)).half().float()
        each = scale.clamp_min(1e-12)[..., None]
        error = (((parts / each).round_().clamp_(low, high) * each - parts).square_() * weighed).sum(2)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, scale, chosen)
    return chosen


def _feedback(hessian: Tensor) -> tuple[Tensor, Tensor]:
    """The order of the columns, and the upper Cholesky factor of the inverse in that order."""
    order = hessian.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _fed_back(rows: Tensor, scale: Tensor, order: Tensor, factor: Tensor, limits: tuple[int, int]) -> Tensor:
    """Codes [rows, in] as floats; scale [rows, in]."""
    left, each = rows.T[order], scale.T[order]
    codes = torch.empty_like(left)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = torch.empty_like(left[begin:end])
        for j in range(begin, end):
            codes[j] = (left[j] / each[j]).round_().clamp_(*limits)
            error = torch.addcmul(left[j], codes[j], each[j], value=-1, out=errors[j - begin]).div_(factor[j, j])
            left[j + 1 : end].addr_(factor[j, j + 1 : end], error, alpha=-1)
        left[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return codes[order.argsort()].T
