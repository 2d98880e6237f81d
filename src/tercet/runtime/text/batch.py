"""Many generations in shared steps: they join and leave between any two of them.

A step gives every running answer its next token and spends what is left of its tokens on prompts, in the order they
came; so a long prompt slows the others down but never stops them. A prompt waits with its beginning until it is its
turn, and then shares what an earlier one has computed. Each answer is the one it would have been alone, token by token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import EngineError
from tercet.runtime.text.generation import Generation
from tercet.runtime.text.sampling import Sampling

if TYPE_CHECKING:
    from tercet.runtime.text.engine import Engine

__all__ = ["Batch"]


class Batch:
    """Generations that run together. One thread calls `step`; others may `add` and cancel meanwhile.

    Attributes:
        most: generations computed in one step; more wait until one ends.
        tokens: of prompts and answers computed in one step, about: what bounds its time.
    """

    def __init__(self, engine: Engine, *, most: int = 64, tokens: int = 128) -> None:
        if most < 1 or tokens < 1:
            raise EngineError(f"a batch of {most} generations and {tokens} tokens a step; both must be at least 1")
        self.most, self.tokens = most, tokens
        self._engine = engine
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
        """Queue a generation as `Engine.generate` makes one. Raises EngineError where its prompt cannot be run."""
        generation = self._engine._generation(ids, sampling, stop_ids, speculate=speculate)
        self._waiting.append(generation)
        return generation

    def step(self) -> list[tuple[Generation, list[int]]]:
        """Compute one step: the generations that have new tokens or have ended, with those tokens.

        Raises EngineError where the weights are damaged.
        """
        gone: list[tuple[Generation, list[int]]] = [(generation, []) for generation in (*self._leave(), *self._join())]
        alone = len(self._running) == 1
        left = self.tokens
        parts: list[tuple[Generation, tuple[NDArray[np.int32] | list[int], int]]] = []
        for generation in sorted(self._running, key=lambda g: g.prefilling):  # answers first; the order stays
            if generation.prefilling:
                if left <= 0 and parts:
                    break
                if generation.sequence is None:
                    others = [g.sequence for g in self._running if g.sequence is not None]
                    self._engine._begin(generation, others)
            part = generation.part(max(left, 1), speculate=alone)
            left -= len(part[0])
            parts.append((generation, part))
        new = self._engine._advance(parts) if parts else []
        made = [(generation, tokens) for (generation, _), tokens in zip(parts, new, strict=True)]
        self._leave()
        return gone + [(generation, tokens) for generation, tokens in made if tokens or generation.ended]

    def _join(self) -> list[Generation]:
        """Let waiting ones in; returns those that ended before it was their turn."""
        ended: list[Generation] = []
        while self._waiting and len(self._running) < self.most:
            generation = self._waiting.popleft()
            (ended if generation.ended else self._running).append(generation)
        return ended

    def _leave(self) -> list[Generation]:
        """Take out those that have ended; their keys and values stay for later prompts."""
        ended = [generation for generation in self._running if generation.ended]
        self._running = [generation for generation in self._running if not generation.ended]
        for generation in ended:
            self._engine._keep(generation)
        return ended
