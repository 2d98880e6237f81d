"""How sure a difference of two models is: the paired bootstrap of their results on the same queries.

Queries are drawn again with replacement, as many as there were, and the mean of (one - other) over them taken, 10,000
times; the middle 95 % of those means is the interval (Efron's percentile method). Queries that belong together, such as
the captions of a picture, are drawn together.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import TercetError

__all__ = ["Interval", "paired"]

DRAWS = 10_000
CHUNK = 2_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Interval:
    """mean of (one - other), and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def paired(one: ArrayLike, other: ArrayLike, groups: NDArray[np.int64] | None = None, seed: int = 0) -> Interval:
    """The difference of two models' mean results.

    Args:
        one, other: [n], a result for each query: a hit or a miss, or any number.
        groups: int64[n], queries of the same number are drawn together.

    Raises TercetError where the lengths differ or there is no query.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise TercetError(f"results of {first.shape} and {second.shape} queries cannot be paired")
    difference = first - second
    if groups is None:
        sums, counts = difference, np.ones(len(difference))
    else:
        _, numbers = np.unique(groups, return_inverse=True)
        sums = np.asarray(np.bincount(numbers, difference), np.float64)
        counts = np.bincount(numbers).astype(np.float64)
    means = _means(sums, counts, np.random.default_rng(seed))
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(difference.mean()), float(low), float(high))


def _means(sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """float64[DRAWS]. Groups that are alike are drawn as one number: how many of the kind come up."""
    kinds, sizes = np.unique(np.stack([sums, counts], axis=1), axis=0, return_counts=True)
    means = []
    for begin in range(0, DRAWS, step := max(CHUNK // len(kinds), 1)):
        drawn = rng.multinomial(sizes.sum(), sizes / sizes.sum(), size=min(step, DRAWS - begin))
        means.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
    return np.concatenate(means)
