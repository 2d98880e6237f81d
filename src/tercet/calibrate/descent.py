"""Coordinate descent on the codes: each column moves to its best levels while all others stand still.

The error (W' - Q) D (W' - Q)^T, seen as a function of column j alone, is least at q_j + r_j / D_jj with
r = (W' - Q) D; the nearest level is taken and r follows. It never rises, and the order of columns does not matter much.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.calibrate.feedback import BLOCK, columns
from tercet.quantizers import Levels, round_to_levels

__all__ = ["sweep"]


def sweep(weight: Tensor, hessian: Tensor, levels: Levels, *, binary: bool) -> Tensor:
    """Codes int8[out, in] after one pass over all columns; scales and shifts stay.

    Args:
        weight: float32[out, in]; hessian: float32[in, in], damped.
    """
    scale, shift = columns(levels, weight.shape[1])
    rest = hessian @ (weight - levels.dequantize()).T  # r, [in, out]
    codes = levels.codes.T.contiguous()
    diagonal = hessian.diagonal()
    for begin in range(0, len(rest), BLOCK):
        at = slice(begin, begin + BLOCK)
        inside = rest[at].clone()
        moves = torch.empty_like(inside)
        for j in range(len(inside)):
            column = begin + j
            now = scale[column] * codes[column]
            target = torch.add(now, inside[j] / diagonal[column])
            low = None if shift is None else shift[column]
            target = target if low is None else target.add_(low)
            code = round_to_levels(target, scale[column], low, binary=binary)
            codes[column] = code
            torch.sub(scale[column] * code, now, out=moves[j])
            inside[j + 1 :].addr_(hessian[column, column + 1 : begin + len(inside)], moves[j], alpha=-1)
        rest.addmm_(hessian[:, at], moves, alpha=-1)
    return codes.T.contiguous()
