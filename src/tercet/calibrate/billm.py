"""BiLLM (Huang et al. 2024, arXiv 2402.04291), for comparison: evaluated dense, with its true bits; not packed.

Blocks of 128 columns, left to right. With D the damped Hessian, U the upper Cholesky factor of D^-1 and the saliency
s = w^2 / U_jj^2 of each weight, a block becomes, each row with its own levels,

    salient columns   mean + a1*sign + a2*sign         binarized, and once more what that leaves
    all others        mean + a*sign, twice             those with |w| >= p and those with |w| < p, apart

and the columns after it make up for its error, as in `feedback`: W -= (w - q)/U_jj * U_j. How many columns are salient
(1 to 49, by falling sum of s) is searched with s itself in the place of the weights, twice binarized on both sides; p,
of 81 percentiles of |w|, with the weights.

The authors' code (Aaronhuang-778/BiLLM, utils/autosearch.py) takes s for |w| in the last step too. The paper speaks of
the weights' magnitude there, and that is better: the error (w - q) D (w - q) of the seven matrices of SmolLM2's second
block is 0.61 to 0.81 times theirs.

Bits a weight: a sign, and a second one (salient) or which of the two groups (others): 2. To that, for each row and
block, seven float16 (three means, four scales), and a bit for each column of a block that says whether it is salient.
That is 2.9 bits in blocks of 128. The 1.08 that the paper names leaves out the groups and all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.calibrate.blocks import Walk
from tercet.calibrate.keep import dequantized, rounded
from tercet.calibrate.statistics import Statistics, damped
from tercet.program import Program
from tercet.program.blocks import Stage, block_ops
from tercet.recipe import Calibrate, Planned

__all__ = ["Dense", "billm_dense", "binarize"]

BLOCK = 128
MOST_SALIENT = 49
PERCENTILES = np.linspace(0.1, 0.9, 81)


@dataclass(frozen=True)
class Dense:
    """A model's matrices as they would be computed with.

    Attributes:
        weights: float32[out, in] of every planned matrix, by name: binarized, or as it is kept.
        bits: what each binarized one needs in all.
    """

    weights: dict[str, NDArray[np.float32]]
    bits: dict[str, int]

    @property
    def bits_per_weight(self) -> float:
        """Of the binarized matrices."""
        return sum(self.bits.values()) / sum(self.weights[name].size for name in self.bits)


def billm_dense(
    program: Program,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    windows: NDArray[np.int64],
    settings: Calibrate,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Dense:
    """BiLLM in place of the quantizers of `plan`, on the Hessians that `calibrate` makes of the same arguments.

    With `correction` and `residual` of the settings 0 it is the paper's method; with others it starts from the
    corrected weights, as our own quantizers do. The last norm is left alone.
    """
    walk = _Walk(program, plan, settings, torch.from_numpy(windows))
    blocks = block_ops(program)
    weights: dict[str, NDArray[np.float32]] = {}
    for index, ops in enumerate(blocks):
        names = [name for op in ops for name in (op.weight, op.bias) if name]
        found = walk.block(ops, {name: np.array(tensors[name], np.float32) for name in names}, {})
        weights.update({name: dequantized(tensor) for name, tensor in found.items()})
        if progress:
            progress(index + 1, len(blocks))
    weights.update(
        {name: dequantized(rounded(tensors[name], plan[name], name)) for name in plan if name not in weights}
    )
    return Dense(weights, walk.bits)


def binarize(weight: Tensor, hessian: Tensor) -> tuple[Tensor, int]:
    """The dense approximation of float32[out, in] for a damped float32[in, in] Hessian, and its bits in all."""
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    left, bits = weight.clone(), 0
    for begin in range(0, left.shape[1], BLOCK):
        end = min(begin + BLOCK, left.shape[1])
        w, diagonal = left[:, begin:end].clone(), factor.diagonal()[begin:end]
        q, levels = _block(w, (w / diagonal).square())
        left[:, begin:end] = q
        left[:, end:] -= ((w - q) / diagonal) @ factor[begin:end, end:]
        bits += 2 * w.numel() + 16 * levels * len(w) + w.shape[1]
    return left, bits


def _block(w: Tensor, saliency: Tensor) -> tuple[Tensor, int]:
    """Its approximation, and how many float16 levels each row of it takes."""
    order = saliency.sum(0).argsort(descending=True, stable=True)
    count = _salient_count(saliency[:, order])
    salient, others = order[:count], order[count:]
    q = torch.empty_like(w)
    q[:, salient] = _twice(w[:, salient])
    if not len(others):
        return q, 3
    rest = w[:, others]
    q[:, others] = _grouped(rest, rest.abs() >= _split(rest))
    return q, 7


def _salient_count(saliency: Tensor) -> int:
    """How many of the columns, most salient first, are best approximated apart from the others."""
    counts = range(1, min(MOST_SALIENT, saliency.shape[1]) + 1)
    losses = [_twice_loss(saliency[:, :n]) + _twice_loss(saliency[:, n:]) for n in counts]
    return 1 + int(np.argmin(losses))


def _split(w: Tensor) -> float:
    """The p with which both groups together are best approximated."""
    magnitude = w.abs()
    candidates = np.quantile(magnitude.numpy(), PERCENTILES)
    losses = [_grouped_loss(w, magnitude >= p) for p in candidates.tolist()]
    return float(candidates[np.argmin(losses)])


def _grouped(x: Tensor, high: Tensor) -> Tensor:
    """The two groups of each row binarized, each around its mean, with float16 levels."""
    mean = _chosen(_of_groups(x, high).half().float(), high)
    apart = x - mean
    scale = _chosen(_of_groups(apart.abs(), high).half().float(), high)
    return torch.where(apart >= 0, mean + scale, mean - scale)


def _grouped_loss(x: Tensor, high: Tensor) -> float:
    """What `_grouped` leaves, but for float16: of each group sum (x - mean)^2 - n*scale^2."""
    apart = (x - _chosen(_of_groups(x, high), high)).abs_()
    scale = _of_groups(apart, high).double()
    count = high.sum(1, keepdim=True)
    spread = apart.square().sum(dtype=torch.float64)
    return float(spread - (scale.square() * torch.stack([count, x.shape[1] - count])).sum())


def _chosen(values: Tensor, high: Tensor) -> Tensor:
    """The group's value, of [2, rows, 1], for each weight."""
    return torch.where(high, values[0], values[1])


def _of_groups(x: Tensor, high: Tensor) -> Tensor:
    """Means of both groups of each row, [2, rows, 1]; 0 for one without members."""
    sums = torch.stack([(x * high).sum(1, keepdim=True), x.sum(1, keepdim=True)])
    sums[1] -= sums[0]
    count = high.sum(1, keepdim=True)
    return sums / torch.stack([count, x.shape[1] - count]).clamp(min=1)


def _twice(x: Tensor) -> Tensor:
    """Each row binarized around its mean, then what that leaves; float16 levels. The means are stored as one."""
    first, scale, again, second, finer = _halves(x)
    mean = (x.mean(1, keepdim=True) + again).half().float()
    coarse, fine = scale.half().float(), finer.half().float()
    return mean + torch.where(first >= 0, coarse, -coarse) + torch.where(second >= 0, fine, -fine)


def _twice_loss(x: Tensor) -> float:
    """What `_twice` leaves, but for float16."""
    if not x.shape[1]:
        return 0.0
    _, _, _, second, finer = _halves(x)
    return float(second.square().sum(dtype=torch.float64) - x.shape[1] * finer.double().square().sum())


def _halves(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x - mean, its scale, the mean of what is left, that without its mean, its scale."""
    first = x - x.mean(1, keepdim=True)
    scale = first.abs().mean(1, keepdim=True)
    second = first - torch.where(first >= 0, scale, -scale)
    again = second.mean(1, keepdim=True)
    second -= again
    return first, scale, again, second, second.abs().mean(1, keepdim=True)


@dataclass(frozen=True)
class _Solved:
    """What `Walk` expects of a solved matrix."""

    values: Tensor

    def dequantize(self) -> Tensor:
        return self.values

    def to_tensor(self) -> NDArray[np.float32]:
        return self.values.numpy()


class _Walk(Walk):
    """The walk of `calibrate` with this solver. Linears that share an input do not share salient columns."""

    def __init__(self, program: Program, plan: Mapping[str, Planned], settings: Calibrate, windows: Tensor) -> None:
        super().__init__(program, plan, settings, windows)
        self.bits: dict[str, int] = {}

    def _solve(self, stage: Stage, statistics: Statistics, unseen: Statistics | None = None) -> dict[str, _Solved]:  # noqa: ARG002
        hessian = damped(statistics.hessian, self.settings.damping)
        found = {}
        for op in self._unsolved(stage):
            values, self.bits[op.weight] = binarize(statistics.corrected(op.weight), hessian)
            found[op.weight] = _Solved(values)
        return found
