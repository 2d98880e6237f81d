"""Speculative decoding by prompt look-up: tokens that followed the same words before are computed along with the next.

Where the last tokens stood before in prompt or answer, what followed them there is proposed; one step gives the logits
after each proposed token, and those tokens are kept that would have been chosen anyway. So it changes the speed alone,
and how many tokens are proposed is a question of speed alone. Answered by two things that are measured all the time:

    a[m]  how often the token after a match of m tokens was the right one; counted whether or not it was proposed
    c[n]  what a step of n tokens costs, in steps of one

The n - 1 tokens proposed after a match of m are those for which (1 + a[m] + a[m] a[m+1] + ...) / c[n] is largest, if
that is more than 1. Text that does not repeat costs a look-up a token, microseconds.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pace", "Speculation"]

GRAM = 2  # tokens that must match
LONGEST = 16  # longer matches are not told apart
STEPS = (2, 4, 8, 16)  # tokens of a step: sizes few enough to be measured soon
COSTS = {2: 1.6, 4: 2.0, 8: 3.0, 16: 5.0}  # until they are
GAIN = 1.05  # least speed-up expected
TRUST = (0.0, 0.0, 0.3, 0.4, 0.5, 0.6, 0.7, *[0.8] * 5, *[0.9] * 5)  # a[m] until it is counted
MEMORY = 16  # tokens over which it is counted


class Pace:
    """What steps of one engine cost: the best of the last few times of each size, in steps of one token."""

    def __init__(self) -> None:
        self._single: deque[float] = deque(maxlen=9)
        self._ratios = {size: deque([cost], maxlen=5) for size, cost in COSTS.items()}
        self._tried: set[int] = set()

    def timed(self, tokens: int, seconds: float) -> None:
        """A step of one sequence's `tokens` tokens took so long."""
        if tokens == 1:
            self._single.append(seconds)
        elif tokens in self._ratios and self._single:
            if tokens not in self._tried:
                self._tried.add(tokens)
                self._ratios[tokens].clear()
            self._ratios[tokens].append(seconds / sorted(self._single)[len(self._single) // 2])

    def cost(self, tokens: int) -> float:
        return min(self._ratios[tokens])


class Speculation:
    """Proposals for one text; never an id beyond the vocabulary, which names a given row."""

    def __init__(self, prompt: NDArray[np.int32], pace: Pace, vocab_size: int) -> None:
        self._pace, self._vocab_size = pace, vocab_size
        self._trust = list(TRUST)
        self._ids: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where a run of GRAM tokens last stood: the index after it
        self._at, self._match = 0, 0  # of what is likely to come, and how many tokens before it agree; 0: nothing is
        for token in prompt.tolist():
            earlier = self._append(token)
        self._find(earlier)

    def propose(self, room: int) -> list[int]:
        """Tokens to compute after the last one, at most `room`; none where that would not pay."""
        if not self._match:
            return []
        best, best_rate = 0, GAIN
        expected = reached = 1.0
        for smaller, size in pairwise((1, *STEPS)):
            if size - 1 > room:
                break
            for nth in range(smaller - 1, size - 1):
                reached *= self._trust[min(self._match + nth, LONGEST)]
                expected += reached
            rate = expected / self._pace.cost(size)
            if rate > best_rate:
                best, best_rate = size - 1, rate
        proposed: list[int] = []
        for i in range(self._at, self._at + best):  # past the end it goes on with itself, as a loop does
            token = self._ids[i] if i < len(self._ids) else proposed[i - len(self._ids)]
            if token >= self._vocab_size:
                break
            proposed.append(token)
        return proposed

    def made(self, tokens: list[int]) -> None:
        """These tokens came next, proposed or not."""
        for token in tokens:
            right = False
            if self._match:
                right = self._ids[self._at] == token
                m = min(self._match, LONGEST)
                self._trust[m] += (right - self._trust[m]) / MEMORY
            earlier = self._append(token)
            if right:
                self._at, self._match = self._at + 1, self._match + 1
            else:
                self._find(earlier)

    def _append(self, token: int) -> int | None:
        """The index after the run of GRAM tokens that `token` ends, where it stood last."""
        self._ids.append(token)
        run = tuple(self._ids[-GRAM:])
        earlier = self._after.get(run)
        self._after[run] = len(self._ids)
        return earlier

    def _find(self, earlier: int | None) -> None:
        self._match = 0
        if earlier is None:
            return
        self._at, end, m = earlier, len(self._ids), GRAM
        while m < LONGEST and m < earlier and self._ids[earlier - 1 - m] == self._ids[end - 1 - m]:
            m += 1
        self._match = m
