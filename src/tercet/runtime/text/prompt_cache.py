"""Keys and values of earlier texts, kept for later ones that begin alike.

A new text starts from a copy of what it shares with the kept text that shares most; only the rest is computed. That
changes no bit of any result: a token's keys and values depend on the tokens before it alone, whatever steps they were
computed in. Copying costs little beside computing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet import _native
from tercet.runtime.locks import ForkLock
from tercet.runtime.text.given import GivenRows
from tercet.runtime.text.sequence import Sequence
from tercet.runtime.text.stepper import Stepper

__all__ = ["PromptCache", "common"]


@dataclass(frozen=True, eq=False)
class _Kept:
    """A text, int32[n], the cache that holds its keys and values, and what ids beyond the vocabulary name."""

    ids: NDArray[np.int32]
    cache: _native.Sequence
    given: frozenset[GivenRows]

    @classmethod
    def of(cls, sequence: Sequence) -> _Kept:
        return cls(np.array(sequence.ids, np.int32), sequence.cache, frozenset(sequence.given))


class PromptCache:
    """Texts at rest; the one not used for longest goes first when memory runs out. Safe from several threads.

    Attributes:
        most_bytes: of keys and values; 0 keeps none. The rows that a text's ids name stay too, a small part of that.
    """

    def __init__(self, stepper: Stepper, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._stepper = stepper
        self._lock = ForkLock()
        self._kept: list[_Kept] = []  # the one used last is last

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held."""
        with self._lock:
            return sum(entry.cache.kv_bytes for entry in self._kept)

    def sequence(self, prompt: NDArray[np.int32], others: Iterable[Sequence] = ()) -> Sequence:
        """A new sequence with what is known of the prompt int32[n], here or by one of `others`: n - 1 tokens at most,
        since the logits after the last are what comes next. Raises EngineError where there is no room for one."""
        found = self._best(prompt, [_Kept.of(other) for other in others])
        if found is None:
            return Sequence(self._stepper)
        entry, shared = found
        shared = min(shared, len(prompt) - 1)
        cache = self._stepper.fork(entry.cache, shared)
        return Sequence(self._stepper, cache, prompt[:shared].tolist(), entry.given)

    def _best(self, ids: NDArray[np.int32], others: list[_Kept]) -> tuple[_Kept, int] | None:
        """What shares most with the beginning of `ids`, and how many tokens that is."""
        with self._lock:
            entry, shared = max(
                ((entry, common(entry.ids, ids)) for entry in (*self._kept, *others)),
                key=lambda found: found[1],
                default=(None, 0),
            )
            if entry is None or shared == 0:
                return None
            if entry in self._kept:
                self._kept.remove(entry)
                self._kept.append(entry)
            return entry, shared

    def keep(self, sequence: Sequence) -> None:
        """Take over a sequence that nobody uses any more."""
        size = sequence.kv_bytes
        if not sequence.ids or size > self.most_bytes:
            return
        new = _Kept.of(sequence)
        with self._lock:
            if any(common(entry.ids, new.ids) == len(new.ids) for entry in self._kept):
                return  # a kept text begins with all of it
            rest = [entry for entry in self._kept if common(entry.ids, new.ids) < len(entry.ids)]
            sizes = [entry.cache.kv_bytes for entry in rest]
            while rest and sum(sizes) + size > self.most_bytes:
                del rest[0], sizes[0]
            self._kept = [*rest, new]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept = []


def common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Tokens at the beginning that are the same."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    first = int(differ.argmax()) if n else 0
    return first if n and differ[first] else n
