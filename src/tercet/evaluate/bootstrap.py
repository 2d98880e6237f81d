"""How sure a difference of two models is: the paired bootstrap of their results on the same queries.

Queries are drawn again with replacement, as many as there were, and the mean of (one - other) over them taken, 10,000
times; the middle 95 % of those means is the interval (Efron's percentile method). Queries that belong together, such as
the captions of a picture, are drawn together. A result that is the mean of several means (both directions of retrieval)
is that in every draw; of a mean over classes the queries are drawn within their class, so that classes stay what they
are. A class of a single picture then adds nothing to the width: with very few a class, intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError

__all__ = ["Interval", "Queries", "paired"]

DRAWS = 10_000
CHUNK = 2_000_000  # numbers drawn at once

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """mean of (one - other), and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Queries:
    """What a model's result is the mean of.

    Attributes:
        results: [n], of each query: a hit or a miss, or any number.
        groups: int64[n], queries of the same number are drawn together.
        classes: int64[n]; the result is the mean over the classes of their means, and each class is drawn by itself.
        halves: bool[n]; the result is the mean of the means of both halves. Each group has queries in both.
    """

    results: NDArray[Any]
    groups: NDArray[np.int64] | None = None
    classes: NDArray[np.int64] | None = None
    halves: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.results)

    def mean(self) -> float:
        """The model's result."""
        if self.halves is not None:
            return float((self.results[self.halves].mean() + self.results[~self.halves].mean()) / 2)
        if self.classes is not None:
            counts = np.bincount(self.classes)
            right = np.bincount(self.classes, weights=self.results)
            return float((right[counts > 0] / counts[counts > 0]).mean())
        return float(self.results.mean())


def paired(one: Queries, other: Queries, seed: int = 0) -> Interval:
    """The difference of two models' results; groups, classes and halves are those of the first.

    Raises TercetError where the lengths differ or there is no query.
    """
    first, second = np.asarray(one.results, np.float64), np.asarray(other.results, np.float64)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise TercetError(f"results of {first.shape} and {second.shape} queries cannot be paired")
    difference, rng = first - second, np.random.default_rng(seed)
    groups = np.arange(len(difference)) if one.groups is None else one.groups
    if one.classes is None:
        halves = np.zeros(len(difference), bool) if one.halves is None else one.halves
        parts = [halves == half for half in np.unique(halves)]
        value = np.mean([difference[part].mean() for part in parts])
        means = _means(difference, groups, parts, rng)
    else:
        members = [np.flatnonzero(one.classes == each) for each in np.unique(one.classes)]
        value = np.mean([difference[own].mean() for own in members])
        means = np.zeros(DRAWS)
        for own in members:
            means += _means(difference[own], groups[own], [np.ones(len(own), bool)], rng) / len(members)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(value), float(low), float(high))


def _means(
    difference: Floats, groups: NDArray[np.int64], parts: Sequence[NDArray[np.bool_]], rng: np.random.Generator
) -> Floats:
    """float64[DRAWS]: the mean of the parts' means. Groups that are alike are drawn as one: how many come up."""
    _, numbers = np.unique(groups, return_inverse=True)
    table = [np.bincount(numbers, weights) for part in parts for weights in (difference * part, part)]
    kinds, sizes = np.unique(np.stack(table, axis=1), axis=0, return_counts=True)
    means = []
    for begin in range(0, DRAWS, step := max(CHUNK // len(kinds), 1)):
        drawn = rng.multinomial(sizes.sum(), sizes / sizes.sum(), size=min(step, DRAWS - begin)) @ kinds
        means.append((drawn[:, ::2] / drawn[:, 1::2]).mean(axis=1))
    return np.concatenate(means)
