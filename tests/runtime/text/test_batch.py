"""Generations in shared steps: each gets the tokens it would get alone, whenever it joins and whoever leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_packed
from tercet.errors import EngineError
from tercet.runtime import Batch, Engine, Generation, Sampling

PROGRAM, TENSORS = tiny_packed.model("mistral")  # a window of 8
RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(0, 300, n).tolist() for n in (1, 3, 20, 64, 65, 90, 130, 7)]
SETTINGS = [
    Sampling(max_tokens=9),
    Sampling(temperature=1.2, seed=4, max_tokens=12),
    Sampling(temperature=0.8, top_k=20, repetition_penalty=1.3, seed=9, max_tokens=5),
]


def _engine(**options: object) -> Engine:
    return Engine(PROGRAM, TENSORS, **{"threads": 2, "context": 160, **options})


ALONE = _engine(prompt_cache_bytes=0)


def _alone(prompt: list[int], sampling: Sampling, stop: set[int]) -> list[int]:
    return list(ALONE.generate(prompt, sampling, stop, speculate=False))


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_same_tokens_as_alone(data: st.DataObject) -> None:
    engine = _engine(chunk=data.draw(st.sampled_from([5, 128])))
    batch = Batch(engine, most=data.draw(st.integers(1, 5)), tokens=data.draw(st.sampled_from([1, 16, 128])))
    jobs: list[tuple[Generation, list[int], Sampling]] = []
    given_out: dict[int, list[int]] = {}
    left = data.draw(st.integers(1, 8))
    while left or len(batch):
        while left and (not len(batch) or data.draw(st.booleans())):
            prompt, sampling = data.draw(st.sampled_from(PROMPTS)), data.draw(st.sampled_from(SETTINGS))
            jobs.append((batch.add(prompt, sampling, {17}), prompt, sampling))
            left -= 1
        for generation, tokens in batch.step():
            given_out.setdefault(id(generation), []).extend(tokens)
    for generation, prompt, sampling in jobs:
        assert generation.tokens == given_out[id(generation)] == _alone(prompt, sampling, {17})
        assert generation.ended == ("length" if len(generation.tokens) == sampling.max_tokens else "stop")


def test_several_prompts_at_once() -> None:
    engine = _engine()
    expected = [_alone(prompt, SETTINGS[1], {17}) for prompt in PROMPTS]
    assert engine.generate_batch(PROMPTS, SETTINGS[1], {17}) == expected
    each = [SETTINGS[i % 3] for i in range(len(PROMPTS))]
    expected = [_alone(prompt, own, set()) for prompt, own in zip(PROMPTS, each, strict=True)]
    assert engine.generate_batch(PROMPTS, each) == expected
    assert engine.generate_batch([]) == []
    with pytest.raises(EngineError, match="8 prompts, but 2 settings"):
        engine.generate_batch(PROMPTS, SETTINGS[:2])


def test_a_long_prompt_does_not_stop_the_others() -> None:
    batch = Batch(_engine(), tokens=16)
    short = batch.add([1, 2, 3], Sampling(max_tokens=30))
    batch.step()
    long = batch.add(PROMPTS[6], Sampling(max_tokens=3))
    for step in range(8):  # 15 of its 130 tokens in each
        assert [generation for generation, _ in batch.step()] == [short], step
    batch.step()
    assert len(long.tokens) == 1
    assert len(short.tokens) == 10


def test_prompts_that_come_together_share_their_beginning() -> None:
    engine = _engine()
    batch = Batch(engine)
    start = PROMPTS[6]
    generations = [batch.add([*start, i], Sampling(max_tokens=4)) for i in range(3)]
    while len(batch):
        batch.step()
    assert [generation.cached_tokens for generation in generations] == [0, 128, 128]  # what earlier steps computed
    for i, generation in enumerate(generations):
        assert generation.tokens == _alone([*start, i], Sampling(max_tokens=4), set())


def test_cancelling_frees_the_place_and_disturbs_nobody() -> None:
    engine = _engine()
    batch = Batch(engine, most=2)
    first, second, third, never = [batch.add(PROMPTS[i], Sampling(max_tokens=9)) for i in (2, 3, 4, 5)]
    for _ in range(3):
        batch.step()
    assert first.tokens
    first.cancel()
    never.cancel()
    while len(batch):
        batch.step()
    assert (first.ended, never.ended, never.tokens) == ("cancelled", "cancelled", [])
    assert len(first.tokens) < 9
    assert second.tokens == _alone(PROMPTS[3], Sampling(max_tokens=9), set())
    assert third.tokens == _alone(PROMPTS[4], Sampling(max_tokens=9), set())


def test_how_generations_end() -> None:
    batch = Batch(_engine())
    full = batch.add(PROMPTS[5] + PROMPTS[3])
    none = batch.add([1], Sampling(max_tokens=0))
    while len(batch):
        batch.step()
    assert (full.ended, len(full.tokens)) == ("context", 160 - 154 + 1)
    assert (none.ended, none.tokens) == ("length", [])


@pytest.mark.parametrize(
    ("prompt", "message"), [([], "no tokens"), ([300], "vocabulary"), ([-1], "negative"), ([1] * 161, "exceed")]
)
def test_a_prompt_that_cannot_run_is_refused_when_it_comes(prompt: list[int], message: str) -> None:
    batch = Batch(_engine())
    good = batch.add([1, 2], Sampling(max_tokens=2))
    with pytest.raises(EngineError, match=message):
        batch.add(prompt)
    while len(batch):
        batch.step()
    assert len(good.tokens) == 2


def _during(engine: Engine, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """`act` in the middle of each step, as another thread might."""
    step = engine.stepper.step
    monkeypatch.setattr(engine.stepper, "step", lambda *given: (step(*given), act()))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["of the step", "of none", "waiting"])
def test_one_cancelled_during_a_step_is_given_once(which: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    batch = Batch(engine, most=2, tokens=16)
    all_three = [batch.add(prompt, Sampling(max_tokens=3)) for prompt in PROMPTS[3:6]]
    _during(engine, monkeypatch, all_three[which].cancel)
    ends = []
    while len(batch):
        ends += [generation for generation, _ in batch.step() if generation.ended]
    assert sorted(map(all_three.index, ends)) == [0, 1, 2]
    assert [generation.ended for generation in all_three].count("cancelled") == 1


def test_a_step_that_fails_ends_those_it_was_for(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    batch = Batch(engine)
    failing = [batch.add(prompt, Sampling(max_tokens=3)) for prompt in PROMPTS[:2]]

    def fail(*_: object) -> None:
        raise EngineError("damaged")

    with monkeypatch.context() as patch:
        patch.setattr(engine.stepper, "step", fail)
        with pytest.raises(EngineError, match="damaged"):
            batch.step()
    later = batch.add(PROMPTS[2], Sampling(max_tokens=9))
    ends = []
    while len(batch):
        ends += [generation for generation, _ in batch.step() if generation.ended]
    assert ends == [*failing, later]
    assert [generation.ended for generation in ends] == ["cancelled", "cancelled", "length"]
    assert later.tokens == _alone(PROMPTS[2], Sampling(max_tokens=9), set())


def test_no_room_for_a_sequence_ends_its_generation_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = _engine()
    batch = Batch(engine)
    running = batch.add(PROMPTS[2], SETTINGS[0])
    batch.step()
    unlucky = batch.add(PROMPTS[3], SETTINGS[0])

    def fail() -> None:
        raise EngineError("no address space")

    with monkeypatch.context() as patch:
        patch.setattr(engine.stepper, "new_cache", fail)
        with pytest.raises(EngineError, match="no address space"):
            batch.step()
    while len(batch):
        batch.step()
    assert (running.ended, unlucky.ended) == ("length", "cancelled")
    assert running.tokens == _alone(PROMPTS[2], SETTINGS[0], set())


def test_one_thread_steps_while_others_add_and_cancel() -> None:
    batch = Batch(_engine(), most=3, tokens=32)
    added: list[tuple[int, Generation]] = []

    def work(first: int) -> None:
        for i in range(first, 12, 3):
            prompt = i % len(PROMPTS)
            added.append((prompt, batch.add(PROMPTS[prompt], SETTINGS[0])))
            if i % 4 == 3:
                added[-1][1].cancel()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for worker in workers:
        worker.start()
    ends: list[Generation] = []
    while len(batch) or any(worker.is_alive() for worker in workers):
        ends += [generation for generation, _ in batch.step() if generation.ended]
    for worker in workers:
        worker.join()
    while len(batch):
        ends += [generation for generation, _ in batch.step() if generation.ended]
    assert set(ends) == {generation for _, generation in added}
    assert len(ends) == 12
    for prompt, generation in added:
        answer = _alone(PROMPTS[prompt], SETTINGS[0], set())
        assert generation.tokens == answer[: len(generation.tokens)]
        assert generation.ended == "cancelled" or generation.tokens == answer


def test_a_batch_of_nothing() -> None:
    assert Batch(_engine()).step() == []
    with pytest.raises(EngineError, match="at least 1"):
        Batch(_engine(), most=0)
