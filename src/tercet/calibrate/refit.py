"""Refit: the best scales (and shifts) of all groups of a row at once, codes frozen.

Of (W' - Q) D (W' - Q)^T with Q = sum_g alpha_g T_g + gamma_g 1_g the minimum solves, for each row,

    (A + l I) s = b + l s0      A_gh = B_g D B_h^T,  b_g = W' D B_g^T,  B = T_1 .. T_G, 1_1 .. 1_G

s0: the scales before, l: a thousandth of A's mean diagonal, which only holds what the data does not (groups of zeros).
PT2-LLM's "AGA" is the same, one group at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tercet.quantizers import Levels

__all__ = ["refit"]

HOLD = 1e-3
SMALLEST = 1e-6  # a scale never vanishes or turns: its group would lose its codes
ROWS = 2048  # solved at a time: A takes rows * (2G)^2 floats


def refit(weight: Tensor, hessian: Tensor, levels: Levels, *, binary: bool) -> Levels:
    """`levels` with new scales and shifts; float32[out, in] weight, float32[in, in] damped hessian."""
    pieces = [slice(begin, begin + ROWS) for begin in range(0, len(weight), ROWS)]
    solved = torch.cat([_solve(weight[at], hessian, levels.rows(at)) for at in pieces])
    groups = levels.scale.shape[1]
    shift = None if levels.shift is None else solved[:, groups:]
    return Levels.of(levels.codes, solved[:, :groups].clamp_min(SMALLEST), shift, binary=binary)


def _solve(weight: Tensor, hessian: Tensor, levels: Levels) -> Tensor:
    """[rows, G] scales, then [rows, G] shifts if there are any."""
    rows, groups = levels.scale.shape
    each = weight.shape[1] // groups
    bases = [levels.codes.float()]
    before = levels.scale.float()
    if levels.shift is not None:
        bases.append(torch.ones_like(weight))
        before = torch.cat([before, levels.shift.float()], dim=1)

    def against(products: Tensor) -> Tensor:
        """Row-wise inner products with every B_g: [rows, in] -> [rows, len(bases) * groups]."""
        return torch.cat([(products * base).reshape(rows, groups, each).sum(2) for base in bases], dim=1)

    equations = torch.empty(rows, before.shape[1], before.shape[1])
    for index, base in enumerate(bases):
        for group in range(groups):
            at = slice(group * each, (group + 1) * each)
            equations[:, index * groups + group] = against(base[:, at] @ hessian[at])
    hold = equations.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).mul_(HOLD).clamp_min_(1e-12)
    equations.diagonal(dim1=1, dim2=2).add_(hold)
    solved: Tensor = torch.linalg.solve(equations, against(weight @ hessian) + hold * before)
    return solved
