"""Linear probe: how much of the classes a linear map of frozen embeddings can tell.

Ridge regression on one-hot labels, in closed form: with X the centred embeddings [n, d], Y the centred labels,

    X^T X = V diag(s) V^T,   W(l) = V diag(1 / (s + l)) V^T X^T Y,   class = argmax of x W(l)

X^T X, and X^T Y, which is a sum of x for each class, are added up from chunks: nothing of n rows is made beside the
embeddings. One eigendecomposition serves all l; l is chosen by five-fold cross-validation on the training pictures, the
largest of equally good ones, and W fitted on all. Papers fit logistic regression by L-BFGS instead. This gives the same
number each time, needs nothing but numpy and seconds for 50,000 pictures, and both models of a comparison go through it
alike, which is what a comparison of embeddings needs; absolute values are a little below those of a tuned logistic
regression.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError

__all__ = ["probe"]

STRENGTHS = tuple(10.0**power for power in range(2, -7, -1))  # times the mean of s
FOLDS = 5
CHUNK = 1 << 22  # numbers of float64 at once

Floats = NDArray[np.float64]


def probe(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], tests: NDArray[np.float32], classes: int, seed: int = 0
) -> NDArray[np.float32]:
    """Scores float32[tests, classes].

    Args:
        vectors: float32[n, dim], the training pictures', of length 1. labels: int64[n].
        tests: float32[tests, dim].

    Raises TercetError for fewer than five training pictures.
    """
    if len(labels) < 5:
        raise TercetError(f"{len(labels)} training pictures are too few for a linear probe; give some for each class")
    part = np.random.default_rng(seed).permutation(len(labels)) % FOLDS
    folds = [_sums(vectors, labels, np.flatnonzero(part == fold), classes) for fold in range(FOLDS)]
    right = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        fits = _fits([own for other, own in enumerate(folds) if other != fold], STRENGTHS)
        for rows in _chunks(np.flatnonzero(part == fold), classes):
            x = vectors[rows]
            right += [(_scores(fit, x).argmax(axis=1) == labels[rows]).sum() for fit in fits]
    (fit,) = _fits(folds, (STRENGTHS[int(np.argmax(right))],))
    made = np.empty((len(tests), classes), np.float32)
    for rows in _chunks(np.arange(len(tests)), classes):
        made[rows] = _scores(fit, tests[rows])
    return made


@dataclass(frozen=True, eq=False)
class _Sums:
    """Of some pictures: how many of each class [classes], sums of their x by class [classes, dim], x^T x [dim, dim]."""

    counts: Floats
    vectors: Floats
    products: Floats


def _sums(vectors: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.int64], classes: int) -> _Sums:
    dim = vectors.shape[1]
    sums, products = np.zeros((classes, dim)), np.zeros((dim, dim))
    for some in _chunks(rows[np.argsort(labels[rows], kind="stable")], dim):
        x = vectors[some].astype(np.float64)
        present, first = np.unique(labels[some], return_index=True)
        sums[present] += np.add.reduceat(x, first)
        products += x.T @ x
    return _Sums(np.bincount(labels[rows], minlength=classes).astype(np.float64), sums, products)


def _fits(parts: list[_Sums], strengths: tuple[float, ...]) -> list[tuple[Floats, Floats]]:
    """For each strength: weights [dim, classes] and bias [classes], of all parts together."""
    counts = np.sum([part.counts for part in parts], axis=0)
    sums = np.sum([part.vectors for part in parts], axis=0)
    x_mean, y_mean = sums.sum(axis=0) / counts.sum(), counts / counts.sum()
    products = np.sum([part.products for part in parts], axis=0) - counts.sum() * np.outer(x_mean, x_mean)
    values, basis = np.linalg.eigh(products)
    values = np.maximum(values, 0)
    turned = basis.T @ (sums - np.outer(counts, x_mean)).T
    unit = values.mean() or 1.0
    made = []
    for strength in strengths:
        weights = basis @ (turned / (values + strength * unit)[:, None])
        made.append((weights, y_mean - x_mean @ weights))
    return made


def _scores(fit: tuple[Floats, Floats], vectors: NDArray[np.float32]) -> Floats:
    weights, bias = fit
    return np.asarray(vectors.astype(np.float64) @ weights + bias)


def _chunks(rows: NDArray[np.int64], width: int) -> Iterator[NDArray[np.int64]]:
    """Some of the rows at a time, so that an array of `width` columns stays below CHUNK numbers."""
    step = max(CHUNK // width, 1)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
