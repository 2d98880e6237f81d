"""The stepper: a compiled model that extends caches of keys and values, one step after the other.

It knows nothing of texts. What lies above it, each on the one before: a sequence (the cache of one text), the prompt
cache (texts at rest), a generation (one answer), a batch (many of them), the engine (their face).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import _native
from tercet.errors import EngineError
from tercet.runtime.locks import ForkLock
from tercet.runtime.text.given import GivenRows, GivenTable
from tercet.runtime.text.speculation import Pace

__all__ = ["Ids", "Stepper", "token_ids"]

Ids = NDArray[np.int32] | list[int]  # a short list costs less than an array


class Stepper:
    """Safe from several threads; steps run one after the other.

    Attributes:
        vocab_size: columns of logits.
        context: tokens a cache may hold.
        isa: name of the instruction set's kernels.
        given: rows from elsewhere that ids beyond the vocabulary name.
        pace: what steps cost; whoever times them says so here.
        after_first: called once, after the first step: now the weights' pages are there.
    """

    def __init__(self, native: _native.Engine, *, vocab_size: int, context: int) -> None:
        self.vocab_size, self.context = vocab_size, context
        self.isa: str = native.isa
        self.given = GivenTable(vocab_size, native.width)
        self.pace = Pace()
        self.after_first: Callable[[], None] | None = None
        self._native = native
        self._spare: list[NDArray[np.float32]] = []
        self._lock = ForkLock()
        self._living: weakref.WeakSet[_native.Sequence] = weakref.WeakSet()

    @property
    def kv_bytes(self) -> int:
        """Bytes that all living caches have written."""
        with self._lock:
            return sum(cache.kv_bytes for cache in self._living)

    def new_cache(self) -> _native.Sequence:
        """An empty cache. Raises EngineError where the address space for it cannot be had."""
        return self._known(self._native.sequence())

    def fork(self, cache: _native.Sequence, length: int) -> _native.Sequence:
        """A copy of the first `length` positions. Raises EngineError where there are fewer, or as `new_cache`."""
        return self._known(self._native.fork(cache, length))

    def rewind(self, cache: _native.Sequence, length: int) -> None:
        """Forget all positions from `length` on. Raises EngineError where there are fewer."""
        self._native.rewind(cache, length)

    def step(
        self,
        caches: list[_native.Sequence],
        ids: list[Ids],
        wanted: list[int],
        logits: NDArray[np.float32],
        given: Iterable[GivenRows] = (),
    ) -> None:
        """Extend each cache by its ids, and fill `logits` with those after the last `wanted` ids of each.

        Args:
            logits: float32[sum(wanted), vocab].
            given: what ids beyond the vocabulary name.

        Raises EngineError (context exceeded, ids out of range, values not finite) and leaves every cache as it was.
        """
        self._native.step(caches, ids, wanted, logits, [(block.ids.start, block.rows) for block in given])
        if self.after_first is not None:
            tell, self.after_first = self.after_first, None
            if tell is not None:  # another thread may have been first
                tell()

    def new_logits(self, rows: int) -> NDArray[np.float32]:
        """float32[rows, vocab], not filled."""
        return np.empty((rows, self.vocab_size), np.float32)

    def lend(self, rows: int) -> NDArray[np.float32]:
        """Logits kept between steps, at least `rows`; nobody else has them until they are given back."""
        try:
            kept = self._spare.pop()
        except IndexError:
            return self.new_logits(rows)
        return kept if len(kept) >= rows else self.new_logits(rows)

    def give_back(self, logits: NDArray[np.float32]) -> None:
        """What `lend` gave, for the next who asks."""
        if not self._spare:
            self._spare.append(logits)

    def _known(self, cache: _native.Sequence) -> _native.Sequence:
        with self._lock:
            self._living.add(cache)
        return cache


def token_ids(ids: ArrayLike) -> NDArray[np.int32]:
    """int32[n]. Raises EngineError where they are no flat list of integers from 0 to 2^31 - 1."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise EngineError(f"token ids are {array.dtype}{list(array.shape)}; a flat list of integers is needed")
    if array.size and (array.min() < 0 or array.max() >= 2**31):
        raise EngineError("a token id is negative or beyond 2^31")
    return np.ascontiguousarray(array, np.int32)
