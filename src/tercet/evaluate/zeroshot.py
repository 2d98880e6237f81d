"""Zero-shot classification: a class is the mean of what its prompts become.

    w_c = normalise(mean over templates of normalise(text(template with the class's name)))
    prediction = the classes by x . w_c, x the normalised embedding of the picture          (Radford et al. 2021)

How a name goes into a template is said by `tercet.data.sets.sample.filled`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tercet.data.sets.sample import filled
from tercet.runtime.pictures.embedder import Embedder, normalized

__all__ = ["average_precision", "class_vectors", "rank_of_label"]

CHUNK = 1024


def class_vectors(embedder: Embedder, classes: Sequence[str], templates: Sequence[str]) -> NDArray[np.float32]:
    """float32[classes, dim], of length 1."""
    prompts = [filled(template, name) for name in classes for template in templates]
    vectors = normalized(embedder.texts(prompts)).reshape(len(classes), len(templates), -1)
    return normalized(vectors.mean(axis=1))


def rank_of_label(
    pictures: NDArray[np.float32], classes: NDArray[np.float32], labels: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64[n]: how many classes come before the right one; of equal ones, those with a smaller number do.

    Args:
        pictures: float32[n, dim]. classes: float32[classes, dim]. labels: int64[n].
    """
    ranks = np.empty(len(labels), np.int64)
    for start in range(0, len(labels), CHUNK):
        part = slice(start, start + CHUNK)
        scores = pictures[part] @ classes.T
        right = labels[part, None]
        own = np.take_along_axis(scores, right, axis=1)
        equal = (scores == own) & (np.arange(scores.shape[1]) < right)
        ranks[part] = ((scores > own) | equal).sum(axis=1)
    return ranks


def average_precision(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Area under one class's precision-recall steps: the mean over its pictures of the precision at their rank.

    Args:
        scores: float32[n]. truth: bool[n], at least one of them true.
    """
    order = np.argsort(-scores, kind="stable")
    found = truth[order]
    precision = np.cumsum(found) / np.arange(1, len(found) + 1)
    return float(precision[found].mean())
