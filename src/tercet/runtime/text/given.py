"""Rows from elsewhere that stand in a text as tokens do: what an image part made of a picture.

An id at or beyond the vocabulary names such a row (`tercet.program`, at `embed`). Each block of rows has a range of ids
of its own, never used again by its engine; so ids remain the identity of a text, and the prompt cache, forks, rewinds
and batches need not know what they stand for.

A block lives as long as anything refers to it: the caller, a generation, a sequence, a text in the prompt cache. The
same rows given once more while it lives are the same block: so a picture that comes again finds its keys and values.
"""

from __future__ import annotations

import hashlib
import weakref

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import EngineError
from tercet.runtime.locks import ForkLock

__all__ = ["GivenRows", "GivenTable"]

MOST_IDS = 2**31


class GivenRows:
    """A block of rows, made by `Engine.give_rows`; keep it as long as you use its ids.

    Attributes:
        ids: what its rows are called, one after the other.
        rows: float32[len(ids), width], read-only.
    """

    def __init__(self, ids: range, rows: NDArray[np.float32]) -> None:
        self.ids, self.rows = ids, rows


class GivenTable:
    """The blocks of one engine that live. Safe from several threads.

    Attributes:
        used: whether any was ever given; where not, no text needs to be looked through.
    """

    def __init__(self, vocab_size: int, width: int) -> None:
        self._vocab_size, self._width = vocab_size, width
        self.used = False
        self._next = vocab_size
        self._lock = ForkLock()
        self._living: weakref.WeakValueDictionary[bytes, GivenRows] = weakref.WeakValueDictionary()  # by digest

    def give(self, rows: ArrayLike) -> GivenRows:
        """The block with these rows, float32[n, width], n at least 1: the one that lives, or a new one with a copy.

        Raises EngineError: another shape or dtype, values that are not finite; all ids up to 2^31 are used.
        """
        given = np.asarray(rows)
        if given.ndim != 2 or given.shape[1] != self._width or not len(given) or given.dtype != np.float32:
            raise EngineError(f"rows are {given.dtype}{list(given.shape)}; float32['n', {self._width}] is needed")
        if not np.isfinite(given).all():
            raise EngineError("rows hold values that are not finite; is the picture damaged?")
        copy = given.copy(order="C")
        copy.flags.writeable = False
        digest = hashlib.sha256(copy.data).digest()
        with self._lock:
            block = self._living.get(digest)
            if block is None:
                if self._next + len(copy) > MOST_IDS:
                    raise EngineError("all ids for given rows are used; open the model again")
                block = GivenRows(range(self._next, self._next + len(copy)), copy)
                self._next += len(copy)
                self._living[digest] = block
                self.used = True
            return block

    def named(self, ids: NDArray[np.int32]) -> list[GivenRows]:
        """The blocks that ids int32[n] name. Raises EngineError where one beyond the vocabulary names none."""
        beyond = ids[ids >= self._vocab_size]
        if not len(beyond):
            return []
        with self._lock:
            living = list(self._living.values())
        inside = [(block, (beyond >= block.ids.start) & (beyond < block.ids.stop)) for block in living]
        unknown = beyond[~np.any([found for _, found in inside], axis=0)] if inside else beyond
        for token in unknown[:1]:
            why = "it names no given row"
            if token < self._next:
                why = "its row is gone; keep what give_rows returns as long as its ids are used"
            raise EngineError(f"token id {token} is outside the vocabulary of {self._vocab_size}: {why}")
        return [block for block, found in inside if found.any()]
