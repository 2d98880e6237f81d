"""One text on its way from prompt to answer: what to compute next, and the tokens that come of it.

`advance` computes parts of one or of many in one step: `Engine.generate` drives one, a `Batch` many. Each token of the
answer is drawn once, in order, from logits that depend on the tokens before it alone; so the answer is the same whoever
drives it, and whether or not proposals are computed along with it.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import EngineError
from tercet.runtime.text.prompt_cache import PromptCache
from tercet.runtime.text.sampling import Sampling
from tercet.runtime.text.sequence import Sequence, extend
from tercet.runtime.text.speculation import Speculation
from tercet.runtime.text.stepper import Ids, Stepper, token_ids

__all__ = ["Generation", "Share", "advance"]

Share = tuple["Generation", tuple[Ids, int]]  # of a step: a generation and its part
Ending = Literal["stop", "length", "context", "cancelled"]


class Generation:
    """A generation and where it stands.

    Attributes:
        tokens: those made so far; a stop id is not among them.
        ended: None while it goes on; then by a "stop" id, by "length" (max_tokens), because the "context" is full, or
            "cancelled".
        prompt: int32[n].
        prompt_tokens: n.
        sequence: its keys and values; None before its first step, and when they are given away.
        cached_tokens: those of them that were not computed but shared.
    """

    def __init__(
        self,
        stepper: Stepper,
        ids: ArrayLike,
        sampling: Sampling | None = None,
        stop_ids: Collection[int] = (),
        *,
        speculate: bool = True,
    ) -> None:
        """Not begun yet; arguments as of `Engine.generate`.

        Raises EngineError where the prompt is empty, too long for the context, or has an id that is neither of the
        vocabulary nor of given rows.
        """
        prompt, context, vocab_size = token_ids(ids), stepper.context, stepper.vocab_size
        sampling = sampling or Sampling()
        if not len(prompt):
            raise EngineError("the prompt has no tokens; give at least one id")
        if len(prompt) > context:
            raise EngineError(
                f"{len(prompt)} tokens exceed the context of {context};"
                " shorten the prompt or open with a larger context"
            )
        self._given = stepper.given.named(prompt)  # they live until it has ended
        self.tokens: list[int] = []
        self.ended: Ending | None = "length" if sampling.max_tokens == 0 else None
        self.sequence: Sequence | None = None
        self.prompt_tokens = len(prompt)
        self.cached_tokens = 0
        self._context = context
        self._most = sampling.max_tokens
        self._stop_ids = stop_ids
        self.prompt = prompt
        self._sampler = sampling.sampler(vocab_size)
        self._sampler.accept(prompt[prompt < vocab_size] if self._given else prompt)
        self._speculation = Speculation(prompt, stepper.pace, vocab_size) if speculate else None
        self._proposed: list[int] = []

    def begin(self, sequence: Sequence) -> None:
        """Run on `sequence`, which holds some first tokens of the prompt, not all, and nothing else."""
        self.sequence, self.cached_tokens = sequence, len(sequence)

    def leave(self, cache: PromptCache) -> None:
        """Give its sequence to a prompt cache, if it has begun."""
        if self.sequence is not None:
            cache.keep(self.sequence)
            self.sequence = None

    @property
    def running(self) -> Sequence:
        """The sequence of a generation that has begun."""
        assert self.sequence is not None
        return self.sequence

    @property
    def prefilling(self) -> bool:
        """Its prompt is not all computed."""
        return self.sequence is None or len(self.sequence) < self.prompt_tokens

    def part(self, most: int | None = None, *, speculate: bool = True) -> tuple[Ids, int]:
        """Ids for the next step, at most `most` of a prompt, and after how many of the last its logits are needed."""
        self._proposed = []
        done = len(self.running)
        if done < self.prompt_tokens:
            ids = self.prompt[done:] if most is None else self.prompt[done : done + most]
            return ids, int(done + len(ids) == self.prompt_tokens)
        if speculate and self._speculation is not None:
            room = self._context - done - 1
            if self._most is not None:
                room = min(room, self._most - len(self.tokens) - 1)
            self._proposed = self._speculation.propose(room)
        return [self.tokens[-1], *self._proposed], 1 + len(self._proposed)

    def take(self, logits: NDArray[np.float32], rows: range) -> list[int]:
        """New tokens out of a step's logits float32[n, vocab], of which `rows` are its own: as many as `part` said."""
        before = len(self.tokens)
        for row, proposed in zip(rows, [*self._proposed, None], strict=False):
            token = self._sampler.sample(logits, row)
            if token in self._stop_ids:
                self.ended = "stop"
                break
            self.tokens.append(token)
            self._sampler.accept(token)
            if self.prompt_tokens + len(self.tokens) > self._context:
                self.ended = "context"
            elif len(self.tokens) == self._most:
                self.ended = "length"
            if self.ended or token != proposed:
                break
        new = self.tokens[before:]
        if self._proposed:  # what was computed for a proposal that did not come is forgotten
            known = self.prompt_tokens + len(self.tokens) - (self.ended != "stop")
            self.running.rewind(min(known, len(self.running)))
        if self._speculation is not None and rows:
            self._speculation.made(new)
        return new

    def cancel(self) -> None:
        """End it before the next step."""
        self.ended = self.ended or "cancelled"


def advance(stepper: Stepper, parts: list[Share]) -> list[list[int]]:
    """Compute a `part` of each generation in one step: the new tokens of each. Raises EngineError as `Stepper.step`.

    For each token of an answer this runs once with cold caches: plain lists, few calls into numpy.
    """
    wanted = [count for _, (_, count) in parts]
    rows = sum(wanted)
    kept = stepper.lend(rows)
    logits = kept if len(kept) == rows else kept[:rows]
    begin = time.perf_counter()
    extend(stepper, [(generation.running, ids) for generation, (ids, _) in parts], wanted, logits)
    if len(parts) == 1 and rows == len(parts[0][1][0]):
        stepper.pace.timed(rows, time.perf_counter() - begin)
    made, first = [], 0
    for (generation, _), count in zip(parts, wanted, strict=True):
        made.append(generation.take(logits, range(first, first + count)))
        first += count
    stepper.give_back(kept)
    return made
