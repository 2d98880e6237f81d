"""Tokens a second: prefill of a prompt and decoding after it, on the wall clock.

Rounds of prefill and decode alternate, so that a slow moment of the machine falls on both; the median and the
interquartile range of the rounds are reported, after a warm-up that is not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Speed", "Stepper", "speeds"]


class Stepper(Protocol):
    """A model that runs a sequence step by step."""

    def start(self) -> None:
        """Forgets the sequence."""

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Appends ids: float32[vocab] after the last of them."""


@dataclass(frozen=True)
class Speed:
    """Medians over rounds in tokens a second, with first and third quartiles."""

    prefill_tokens_per_s: float
    prefill_quartiles: tuple[float, float]
    decode_tokens_per_s: float
    decode_quartiles: tuple[float, float]
    prefill: int
    decode: int
    rounds: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def speeds(
    models: Mapping[str, Stepper],
    *,
    prefill: int = 512,
    decode: int = 128,
    rounds: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Speed]:
    """Times several models round by round, so that all share the machine's good and bad moments.

    Args:
        models: by name.
        prefill: tokens of the prompt, given in one step.
        decode: tokens after it, one a step, each the likeliest.
        rounds: counted rounds; one more goes before them as warm-up.
        progress: called with (rounds done, rounds) after each round.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    prompt = np.arange(prefill, dtype=np.int64) % 64  # the work does not depend on which tokens they are
    for turn in range(rounds + 1):
        for name, model in models.items():
            times[name].append(_round(model, prompt, decode))
        if progress is not None:
            progress(turn + 1, rounds + 1)
    return {name: _speed(np.array(taken[1:]), prefill, decode) for name, taken in times.items()}


def _round(model: Stepper, prompt: NDArray[np.int64], decode: int) -> tuple[float, float]:
    """Seconds of the prefill and of the decoding."""
    model.start()
    begin = time.perf_counter()
    logits = model.step(prompt)
    middle = time.perf_counter()
    for _ in range(decode):
        logits = model.step(np.array([logits.argmax()], dtype=np.int64))
    return middle - begin, time.perf_counter() - middle


def _speed(taken: NDArray[np.float64], prefill: int, decode: int) -> Speed:
    rates = np.array([[prefill, decode]]) / taken
    low, median, high = np.percentile(rates, (25, 50, 75), axis=0)
    return Speed(
        prefill_tokens_per_s=float(median[0]),
        prefill_quartiles=(float(low[0]), float(high[0])),
        decode_tokens_per_s=float(median[1]),
        decode_quartiles=(float(low[1]), float(high[1])),
        prefill=prefill,
        decode=decode,
        rounds=len(taken),
    )
