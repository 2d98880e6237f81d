"""Many generations in shared steps: they join and leave between any two of them.

A step gives every running answer its next token and spends what is left of its tokens on prompts, in the order they
came; so a long prompt slows the others down but never stops them. A prompt waits with its beginning until it is its
turn, and then shares what an earlier one has computed. Each answer is the one it would have been alone, token by token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Protocol

from numpy.typing import ArrayLike

from tercet.errors import EngineError
from tercet.runtime.text.generation import Generation, Share, advance
from tercet.runtime.text.prompt_cache import PromptCache
from tercet.runtime.text.sampling import Sampling
from tercet.runtime.text.stepper import Stepper

__all__ = ["Batch"]


class Runs(Protocol):
    """What a batch needs of an engine."""

    stepper: Stepper
    prompt_cache: PromptCache


class Batch:
    """Generations that run together. One thread calls `step`; others may `add`, cancel and ask for `len` meanwhile.

    Attributes:
        most: generations computed in one step; more wait until one ends.
        tokens: of prompts and answers computed in one step, about: what bounds its time.
    """

    def __init__(self, engine: Runs, *, most: int = 64, tokens: int = 128) -> None:
        if most < 1 or tokens < 1:
            raise EngineError(f"a batch of {most} generations and {tokens} tokens a step; both must be at least 1")
        self.most, self.tokens = most, tokens
        self._stepper, self._cache = engine.stepper, engine.prompt_cache
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []

    def __len__(self) -> int:
        """Generations that have not ended."""
        return len(self._waiting) + len(self._running)

    def add(
        self,
        ids: ArrayLike,
        sampling: Sampling | None = None,
        stop_ids: Collection[int] = (),
        *,
        speculate: bool = True,
    ) -> Generation:
        """Queue a generation as `Engine.generate` makes one: it joins the next step that has room for it. Raises
        EngineError where its prompt cannot be run."""
        generation = Generation(self._stepper, ids, sampling, stop_ids, speculate=speculate)
        self._waiting.append(generation)
        return generation

    def step(self) -> list[tuple[Generation, list[int]]]:
        """Compute one step: the generations that have new tokens or have ended, with those tokens. Each that was added
        is given with its `ended` set once, and no more after that.

        Raises EngineError where the weights are damaged or memory for a sequence cannot be had. Those it was computed
        for are cancelled then, and given by the next step; the others go on.
        """
        before = [*self._leave(), *self._join()]
        parts = self._parts()
        made = self._advance(parts) if parts else []
        after = {generation: list[int]() for generation in self._leave()}
        for (generation, _), tokens in zip(parts, made, strict=True):
            if tokens or generation in after:
                after[generation] = tokens
        return [*((generation, []) for generation in before), *after.items()]

    def _parts(self) -> list[Share]:
        """What to compute next: all answers, and of prompts what there is room for."""
        alone = len(self._running) == 1
        left = self.tokens
        parts: list[Share] = []
        for generation in sorted(self._running, key=lambda g: g.prefilling):  # answers first; the order stays
            if generation.prefilling:
                if left <= 0 and parts:
                    break
                if generation.sequence is None:
                    self._begin(generation)
            part = generation.part(max(left, 1), speculate=alone)
            left -= len(part[0])
            parts.append((generation, part))
        return parts

    def _begin(self, generation: Generation) -> None:
        others = [other.sequence for other in self._running if other.sequence is not None]
        try:
            generation.begin(self._cache.sequence(generation.prompt, others))
        except EngineError:
            generation.cancel()
            raise

    def _advance(self, parts: list[Share]) -> list[list[int]]:
        try:
            return advance(self._stepper, parts)
        except EngineError:
            for generation, _ in parts:
                generation.cancel()
            raise

    def _join(self) -> list[Generation]:
        """Let waiting ones in; returns those that ended before it was their turn."""
        ended: list[Generation] = []
        while self._waiting and len(self._running) < self.most:
            generation = self._waiting[0]
            (ended if generation.ended else self._running).append(generation)
            self._waiting.popleft()  # only now: whoever asks for the length meanwhile must not find none
        return ended

    def _leave(self) -> list[Generation]:
        """Take out those that have ended; their keys and values stay for later prompts."""
        ended: list[Generation] = []
        running: list[Generation] = []
        for generation in self._running:  # each is asked once: another thread may cancel it at any moment
            (ended if generation.ended else running).append(generation)
        self._running = running
        for generation in ended:
            generation.leave(self._cache)
        return ended
