"""Linear probe: how much of the classes a linear map of frozen embeddings can tell.

Ridge regression on one-hot labels, in closed form: with X the centred embeddings [n, d], Y the centred labels,

    X^T X = V diag(s) V^T,   W(l) = V diag(1 / (s + l)) V^T X^T Y,   class = argmax of x W(l)

One eigendecomposition serves all l; l is chosen by five-fold cross-validation on the training pictures, the largest of
equally good ones, and W fitted on all. Papers fit logistic regression by L-BFGS instead. This gives the same number
each time, needs nothing but numpy and seconds for 50,000 pictures, and both models of a comparison go through it alike,
which is what a comparison of embeddings needs; absolute values are a little below those of a tuned logistic regression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError

__all__ = ["probe"]

STRENGTHS = tuple(10.0**power for power in range(2, -7, -1))  # times the mean of s
FOLDS = 5

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
    right = np.zeros(len(STRENGTHS))
    for fold in range(FOLDS):
        held, rest = part == fold, part != fold
        fits = _fits(vectors[rest], labels[rest], classes, STRENGTHS)
        right += [(_scores(fit, vectors[held]).argmax(axis=1) == labels[held]).sum() for fit in fits]
    best = STRENGTHS[int(np.argmax(right))]
    return _scores(_fits(vectors, labels, classes, (best,))[0], tests).astype(np.float32)


def _fits(
    vectors: NDArray[np.float32], labels: NDArray[np.int64], classes: int, strengths: tuple[float, ...]
) -> list[tuple[Floats, Floats]]:
    """For each strength: weights [dim, classes] and bias [classes]."""
    x = vectors.astype(np.float64)
    y = np.zeros((len(labels), classes))
    y[np.arange(len(labels)), labels] = 1
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    x -= x_mean
    values, basis = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0)
    turned = basis.T @ (x.T @ (y - y_mean))
    unit = values.mean() or 1.0
    made = []
    for strength in strengths:
        weights = basis @ (turned / (values + strength * unit)[:, None])
        made.append((weights, y_mean - x_mean @ weights))
    return made


def _scores(fit: tuple[Floats, Floats], vectors: NDArray[np.float32]) -> Floats:
    weights, bias = fit
    return np.asarray(vectors.astype(np.float64) @ weights + bias)
