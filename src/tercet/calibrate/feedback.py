"""Error feedback: columns are rounded one after another, and those still to come make up for each error.

With D the damped Hessian and U the upper Cholesky factor of D^-1, rounding column j of W to q leaves e = (w - q)/U_jj,
and the best change of the columns after it is -e U_j: GPTQ (Frantar et al. 2022), here with levels scale*T + shift.
Columns are taken in the order of falling D_jj, so that those that matter most are rounded while many can still make up
for them. Scales and shifts stay what they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.quantizers import Levels, round_to_levels

__all__ = ["BLOCK", "columns", "error_feedback"]

BLOCK = 64  # columns updated one by one before the rest of the matrix is, in one product


def error_feedback(weight: Tensor, hessian: Tensor, start: Levels, *, binary: bool) -> Tensor:
    """Codes of `weight` for the scales and shifts of `start`.

    Args:
        weight: float32[out, in].
        hessian: float32[in, in], damped.
        start: scale and shift of each row and group; its codes are not used.

    Returns int8[out, in].
    """
    order = hessian.diagonal().argsort(descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian[order][:, order]))
    factor = torch.linalg.cholesky(inverse, upper=True)
    scale, shift = columns(start, weight.shape[1])
    left = weight.T[order]  # [in, out]: a column of the weight is a contiguous row
    codes = torch.empty(left.shape, dtype=torch.int8)
    for begin in range(0, len(left), BLOCK):
        end = min(begin + BLOCK, len(left))
        errors = torch.empty_like(left[begin:end])
        for j in range(begin, end):
            at = int(order[j])
            code = round_to_levels(left[j], scale[at], None if shift is None else shift[at], binary=binary)
            value = scale[at] * code if shift is None else torch.addcmul(shift[at], scale[at], code.float())
            codes[j] = code
            error = torch.sub(left[j], value, out=errors[j - begin]).div_(factor[j, j])
            left[j + 1 : end].addr_(factor[j, j + 1 : end], error, alpha=-1)
        left[end:].addmm_(factor[begin:end, end:].T, errors, alpha=-1)
    return codes[order.argsort()].T.contiguous()


def columns(levels: Levels, width: int) -> tuple[Tensor, Tensor | None]:
    """Scale and shift of each column, float32[in, out]: what a column's rounding reads is contiguous."""
    each = width // levels.scale.shape[1]
    scale = levels.scale.float().T.repeat_interleave(each, dim=0)
    return scale, None if levels.shift is None else levels.shift.float().T.repeat_interleave(each, dim=0)
