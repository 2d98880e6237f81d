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

__all__ = ["Kept", "PromptCache", "common"]


@dataclass(frozen=True, eq=False)
class Kept:
    """Tokens int32[n], and a sequence that holds their keys and values."""

    ids: NDArray[np.int32]
    native: _native.Sequence


class PromptCache:
    """Sequences at rest; the one not used for longest goes first when memory runs out. Safe from several threads.

    Attributes:
        most_bytes: of keys and values; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = ForkLock()
        self._kept: list[Kept] = []  # the one used last is last

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values held."""
        with self._lock:
            return sum(entry.native.kv_bytes for entry in self._kept)

    def best(self, ids: NDArray[np.int32], others: Iterable[Kept] = ()) -> tuple[Kept, int] | None:
        """What shares most with the beginning of `ids`, here or among `others`, and how many tokens that is."""
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

    def keep(self, ids: list[int], native: _native.Sequence) -> None:
        """Take over a sequence that nobody extends any more."""
        size = native.kv_bytes
        if not ids or size > self.most_bytes:
            return
        new = Kept(np.array(ids, np.int32), native)
        with self._lock:
            if any(common(entry.ids, new.ids) == len(ids) for entry in self._kept):
                return  # a kept text begins with all of it
            rest = [entry for entry in self._kept if common(entry.ids, new.ids) < len(entry.ids)]
            sizes = [entry.native.kv_bytes for entry in rest]
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
