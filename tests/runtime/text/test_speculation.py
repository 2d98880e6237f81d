"""Speculative decoding changes no token; what it proposes, and when it refrains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_packed
from tercet.runtime import Engine, Sampling
from tercet.runtime.text import speculation
from tercet.runtime.text.speculation import Pace, Speculation

PROGRAM, TENSORS = tiny_packed.model()
RNG = np.random.default_rng(3)
PROMPT = np.tile(RNG.integers(0, 300, 9), 5)


class Eager(Pace):
    """Steps of any size cost the same: proposing always pays."""

    def cost(self, tokens: int) -> float:  # noqa: ARG002
        return 0.5


class Never(Pace):
    def cost(self, tokens: int) -> float:
        return float(tokens + 1)


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = Engine(PROGRAM, TENSORS, threads=2, context=128, prompt_cache_bytes=0)
    made.stepper.pace = Eager()
    return made


@given(
    length=st.integers(1, 100),
    period=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.3, 1.5]),
    penalty=st.sampled_from([1.0, 1.3]),
    most=st.sampled_from([1, 2, 7, None]),
    seed=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_same_tokens_with_and_without(
    engine: Engine, length: int, period: int, temperature: float, penalty: float, most: int | None, seed: int
) -> None:
    prompt = np.resize(RNG.integers(0, 300, period), length)
    sampling = Sampling(temperature=temperature, repetition_penalty=penalty, seed=seed, max_tokens=most)
    plain = list(engine.generate(prompt, sampling, {11}, speculate=False))
    assert list(engine.generate(prompt, sampling, {11})) == plain
    if plain:
        stop = {plain[-1]}
        assert list(engine.generate(prompt, sampling, stop)) == plain[: plain.index(plain[-1])]


def test_a_sequence_holds_what_was_said_and_no_more(engine: Engine) -> None:
    sequence = engine.new_sequence()
    answer = list(engine.generate(PROMPT, Sampling(max_tokens=30), sequence=sequence))
    assert sequence.ids == [*PROMPT.tolist(), *answer][: len(sequence)]
    assert len(sequence) == len(PROMPT) + len(answer) - 1
    more = [*PROMPT.tolist(), *answer, 5]
    expected = engine.logits(more)[-1]
    assert np.array_equal(engine.step([(sequence, more[len(sequence) :])])[-1], expected)


def test_a_loop_takes_few_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    step = engine.stepper.step
    monkeypatch.setattr(engine.stepper, "step", lambda *given: (steps.append(given), step(*given))[1])
    monkeypatch.setattr(engine.stepper, "pace", Never())
    plain = list(engine.generate([5] * 20, Sampling(max_tokens=60, repetition_penalty=0.01)))
    assert plain == [5] * 60  # what was seen is all it says
    assert len(steps) == 60
    steps.clear()
    monkeypatch.setattr(engine.stepper, "pace", Eager())
    assert list(engine.generate([5] * 20, Sampling(max_tokens=60, repetition_penalty=0.01))) == plain
    assert len(steps) < 10


def _of(text: list[int], pace: Pace | None = None) -> Speculation:
    return Speculation(np.array(text, np.int32), pace or Eager(), 300)


def test_what_followed_the_longest_recent_match_is_proposed() -> None:
    found = _of([7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2])
    assert found.propose(3) == [3, 4, 5]
    assert found.propose(100)[:10] == [3, 4, 5, 6, 7, 8, 9, 1, 2, 3]  # round and round
    assert found.propose(0) == []
    found.made([3, 4])
    assert found.propose(3) == [5, 6, 7]
    found.made([9])
    assert found.propose(3) == []  # 4 9 is new
    found.made([1, 2])
    assert found.propose(3)[:1] == [3]


@pytest.mark.parametrize("text", [[1], [1, 2], [1, 2, 3, 4]])
def test_nothing_is_proposed_where_nothing_repeats(text: list[int]) -> None:
    assert _of(text).propose(10) == []


def test_proposals_stop_when_they_turn_out_wrong_and_come_back_when_they_would_be_right() -> None:
    pace = Pace()
    for _ in range(9):
        pace.timed(1, 1.0)
        for size in speculation.STEPS:
            pace.timed(size, 1.0 + size / 8)
    text = _of([1, 2, 3] * 6, pace)
    assert text.propose(20)
    for other in range(10, 60):  # each time "1 2" comes something new follows
        text.made([1, 2, other])
    text.made([1, 2])
    assert text.propose(20) == []
    text.made([3, 1, 2] * 20)
    assert text.propose(20)


def test_the_pace_is_measured() -> None:
    pace = Pace()
    guess = pace.cost(8)
    pace.timed(8, 1.0)  # without a step of one token it says nothing
    assert pace.cost(8) == guess
    for seconds in (1.0, 1.0, 50.0):
        pace.timed(1, seconds)
    pace.timed(8, 7.0)
    pace.timed(8, 90.0)  # a hiccup
    assert pace.cost(8) == 7.0
    assert pace.cost(4) == speculation.COSTS[4]


def test_nothing_is_proposed_where_a_step_of_two_costs_two() -> None:
    assert _of([1, 2, 3] * 30, Never()).propose(20) == []
