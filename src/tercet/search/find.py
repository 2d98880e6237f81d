"""The pictures of an index that are nearest to a text or to a picture, by cosine.

The search is exact: faiss compares the query with every vector, 10,000 of them in a millisecond, a million in a second.
An approximate graph would have to be kept up to date with every file, and would find other pictures than an index made
from scratch does.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError, ModelError, TercetError
from tercet.runtime.pictures.embedder import Embedder, normalized
from tercet.runtime.pictures.files import open_picture
from tercet.search.store import Index

__all__ = ["Hit", "find"]


@dataclass(frozen=True)
class Hit:
    """A picture that was found.

    Attributes:
        path: relative to the index's folder.
        score: cosine of its embedding and the query's, -1 to 1.
    """

    path: str
    score: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def find(index: Index, clip: Embedder, query: str | Path, count: int = 10) -> list[Hit]:
    """The `count` nearest, best first; of equal ones, by path.

    Args:
        query: a text, or the path of a picture.

    Raises ModelError where the index is of another model, FormatError where the picture cannot be read.
    """
    if index.about["fingerprint"] != clip.fingerprint:
        raise ModelError(f"{index.place}: made by another model; ask with {index.about['model']}, or make it again")
    if isinstance(query, Path):
        vector = clip.encoder.encode_pixels(clip.preprocessor(open_picture(query))[None])
    elif query.strip():
        vector = clip.texts([query])
    else:
        raise FormatError("the query is empty; give some words, or a picture's path")
    paths, matrix = index.matrix()
    scores, rows = _nearest(matrix, normalized(vector), min(count, len(paths)))
    hits = [Hit(paths[row], float(score)) for row, score in zip(rows, scores, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.path))


def _nearest(
    matrix: NDArray[np.float32], query: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and rows of the `count` rows with the largest inner products with query[1, dim]."""
    if not count:
        return np.zeros(0, np.float32), np.zeros(0, np.int64)
    try:
        faiss = import_module("faiss")
    except ImportError:
        raise TercetError("pictures are searched with faiss; pip install 'tercet[images]'") from None
    scores, rows = faiss.knn(query, matrix, count, metric=faiss.METRIC_INNER_PRODUCT)
    return scores[0], rows[0]
