"""Text token by token: what has become certain, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tercet.errors import EngineError

__all__ = ["StreamDecoder", "overlap"]

PENDING = 16  # tokens after which text that is no UTF-8 is shown with replacement characters
REPLACEMENT = "\ufffd"


class Decodes(Protocol):
    """A tokenizer: its text of ids, without special tokens, whose ids are `special_ids`."""

    @property
    def special_ids(self) -> frozenset[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class StreamDecoder:
    """Text as it comes, never half a character, never a stop string or what may become one.

    The pieces together are the text of all ids at once.

    Attributes:
        stopped: a stop string has come; everything before it has been given out.
    """

    def __init__(self, tokenizer: Decodes, stop: Sequence[str] = ()) -> None:
        if any(not text for text in stop):
            raise EngineError("an empty stop string; leave it out")
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []  # those whose text may still change, after some that give them context
        self._shown = 0  # how many of them are given out as text
        self._held = ""  # decoded, but perhaps the start of a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that the next token makes certain; "" where there is none yet."""
        if self.stopped or token in self._tokenizer.special_ids:
            return ""
        self._ids.append(token)
        before = self._tokenizer.decode(self._ids[: self._shown])
        after = self._tokenizer.decode(self._ids)
        # Half a character at the end decodes to U+FFFD: wait for the rest, but not forever.
        if after.endswith(REPLACEMENT) and len(self._ids) - self._shown < PENDING:
            return ""
        # A decoder takes the first blank of a text away: what gives context must have text of its own.
        if self._tokenizer.decode(self._ids[self._shown :]):
            self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """The rest: what was held back in case more came."""
        if self.stopped:
            return ""
        before = self._tokenizer.decode(self._ids[: self._shown])
        rest = self._release(self._tokenizer.decode(self._ids)[len(before) :])
        if not self.stopped:
            rest += self._held
        self._held = ""
        self._ids, self._shown = [], 0
        return rest

    def _release(self, text: str) -> str:
        self._held += text
        # The stop string that is complete first, so that it does not matter how the text falls into tokens.
        found = [
            (self._held.find(stop) + len(stop), self._held.find(stop)) for stop in self._stop if stop in self._held
        ]
        if found:
            self.stopped = True
            cut = min(found)[1]
        else:
            cut = len(self._held) - max((overlap(self._held, stop) for stop in self._stop), default=0)
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready


def overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that may be the start of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
