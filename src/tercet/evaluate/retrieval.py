"""Retrieval: for a text its pictures, for a picture its texts; R@k is the share of queries with a right one among k.

A picture may have several captions, each of which is a query. Captions of the same words are one text, and right for
each picture that has it: else a model would be punished for finding the other of two pictures captioned alike. Of equal
scores the smaller number comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Captions", "caption_table", "ranks"]

CHUNK = 512


class Captions:
    """Which texts belong to which pictures.

    Attributes:
        texts: the different captions.
        of_picture: for each picture the numbers of its texts.
        queries: int64[m], for each caption of each picture the number of its text.
        owners: int64[m], the picture it was given for.
    """

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        self.of_picture = [
            sorted({numbers.setdefault(" ".join(text.split()), len(numbers)) for text in texts}) for texts in captions
        ]
        self.texts = list(numbers)
        pairs = [(numbers[" ".join(text.split())], owner) for owner, texts in enumerate(captions) for text in texts]
        self.queries = np.array([text for text, _ in pairs], np.int64)
        self.owners = np.array([owner for _, owner in pairs], np.int64)

    def of_text(self) -> list[list[int]]:
        """For each text the numbers of the pictures that have it."""
        made: list[list[int]] = [[] for _ in self.texts]
        for picture, texts in enumerate(self.of_picture):
            for text in texts:
                made[text].append(picture)
        return made


def caption_table(
    pictures: NDArray[np.float32], texts: NDArray[np.float32], captions: Captions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks of text -> picture, int64[m] by `captions.queries`, and of picture -> text, int64[n]; 0 is the first place.

    Args:
        pictures: float32[n, dim]. texts: float32[len(captions.texts), dim].
    """
    by_text = ranks(texts, pictures, captions.of_text())
    return by_text[captions.queries], ranks(pictures, texts, captions.of_picture)


def ranks(
    queries: NDArray[np.float32], candidates: NDArray[np.float32], right: Sequence[Sequence[int]]
) -> NDArray[np.int64]:
    """int64[n]: the place, from 0, of the best right candidate of each query; `right[i]` holds at least one."""
    made = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), CHUNK):
        scores = queries[start : start + CHUNK] @ candidates.T
        for row, score in enumerate(scores):
            own = np.asarray(right[start + row])
            best = own[np.argmax(score[own])]
            made[start + row] = (score > score[best]).sum() + (score[:best] == score[best]).sum()
    return made
