"""A sequence: one text and the keys and values of its tokens."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tercet import _native
from tercet.runtime.text.given import GivenRows
from tercet.runtime.text.stepper import Ids, Stepper

__all__ = ["Part", "Sequence", "extend"]

Part = tuple["Sequence", Ids]  # new tokens of a text


class Sequence:
    """The KV cache of one text: made by `Engine.new_sequence`, extended by `Engine.step`.

    Attributes:
        ids: the tokens whose keys and values are held.
        cache: where they lie.
        given: rows from elsewhere that some of the ids name.
    """

    def __init__(
        self,
        stepper: Stepper,
        cache: _native.Sequence | None = None,
        ids: Iterable[int] = (),
        given: Iterable[GivenRows] = (),
    ) -> None:
        """Of nothing, or of a cache that holds `ids` and belongs to nobody else."""
        self._stepper = stepper
        self.cache = stepper.new_cache() if cache is None else cache
        self.ids = list(ids)
        self.given = set(given)

    def __len__(self) -> int:
        return self.cache.length

    @property
    def kv_bytes(self) -> int:
        """Bytes of cache written so far, in whole blocks of 64 positions."""
        return self.cache.kv_bytes

    def rewind(self, length: int) -> None:
        """Forget all tokens from `length` on. Raises EngineError where there are fewer."""
        self._stepper.rewind(self.cache, length)
        del self.ids[length:]

    def fork(self, length: int | None = None) -> Sequence:
        """A copy, of the first `length` tokens or of all, that goes its own way from there."""
        length = len(self) if length is None else length
        return Sequence(self._stepper, self._stepper.fork(self.cache, length), self.ids[:length], self.given)


def extend(stepper: Stepper, parts: list[Part], wanted: list[int], logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """`logits`, float32[sum(wanted), vocab], filled: those after the last `wanted` ids of each part.

    Raises EngineError as `Stepper.step`, and leaves every sequence as it was.
    """
    named = [_named(stepper, ids) for _, ids in parts] if stepper.given.used else []
    given = set(chain(*named)) if named else ()
    stepper.step([sequence.cache for sequence, _ in parts], [ids for _, ids in parts], wanted, logits, given)
    for sequence, ids in parts:
        sequence.ids.extend(ids if isinstance(ids, list) else ids.tolist())
    for (sequence, _), blocks in zip(parts, named, strict=False):
        sequence.given.update(blocks)
    return logits


def _named(stepper: Stepper, ids: Ids) -> list[GivenRows]:
    return [] if isinstance(ids, list) else stepper.given.named(ids)  # a list: what a sampler drew
