"""Rows given to an engine: how long they live, what knows their ids and what ignores them, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_packed
from tercet.errors import EngineError
from tercet.runtime import Batch, Engine, Sampling
from tercet.runtime.text.speculation import Pace, Speculation

PROGRAM, TENSORS = tiny_packed.model()
WIDTH = PROGRAM.widths[PROGRAM.ops[0].output]
GREEDY = Sampling(max_tokens=4)


def _picture(seed: int, rows: int = 10) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, WIDTH)).astype(np.float32)


@pytest.fixture
def engine() -> Engine:
    return Engine(PROGRAM, TENSORS, threads=1, context=128)


def test_the_same_rows_have_the_same_ids_while_they_live(engine: Engine) -> None:
    first, other = engine.give_rows(_picture(1)), engine.give_rows(_picture(2))
    assert engine.give_rows(_picture(1)) is first
    assert (first.ids, other.ids) == (range(300, 310), range(310, 320))
    del first
    assert engine.give_rows(_picture(1)).ids == range(320, 330)  # never those of before


def test_what_was_given_cannot_change_afterwards(engine: Engine) -> None:
    rows = _picture(1)
    block = engine.give_rows(rows)
    before = engine.logits(block.ids)
    rows[:] = 0
    assert np.array_equal(engine.logits(block.ids), before)
    with pytest.raises(ValueError, match="read-only"):
        block.rows[:] = 0


def test_a_text_keeps_its_rows_alive(engine: Engine) -> None:
    sequence = engine.new_sequence()
    block = engine.give_rows(_picture(1))
    ids = [5, *block.ids]
    engine.step([(sequence, ids)])
    fork = sequence.fork(3)
    del block, sequence
    assert engine.give_rows(_picture(1)).ids == range(300, 310)
    assert np.array_equal(engine.step([(fork, ids[3:])])[0], engine.logits(ids)[-1])
    del fork
    with pytest.raises(EngineError, match="its row is gone; keep what give_rows returns"):
        engine.logits(ids)


def test_the_prompt_cache_knows_a_picture_again_and_no_other(engine: Engine) -> None:
    start = [7, 8, 9]
    block = engine.give_rows(_picture(1))
    ids = [*start, *block.ids, 4, 5]
    answer = list(engine.generate(ids, GREEDY))
    del block
    batch = Batch(engine)
    blocks = [engine.give_rows(_picture(seed)) for seed in (1, 2)]  # the first came once before
    again, other = [batch.add([*start, *block.ids, 4, 5], GREEDY) for block in blocks]
    while len(batch):
        batch.step()
    assert again.tokens == answer
    assert (again.cached_tokens, other.cached_tokens) == (len(ids) - 1, len(start))
    cold = Engine(PROGRAM, TENSORS, threads=1, context=128, prompt_cache_bytes=0)
    block = cold.give_rows(_picture(2))
    assert other.tokens == list(cold.generate([*start, *block.ids, 4, 5], GREEDY))
    del again, other, blocks
    engine.prompt_cache.clear()
    assert min(engine.give_rows(_picture(1)).ids) == 320  # nobody kept it


def test_the_penalty_is_for_tokens_alone(engine: Engine) -> None:
    sampling = Sampling(repetition_penalty=1.5, temperature=0.7, seed=3, max_tokens=12)
    block = engine.give_rows(_picture(1))
    prompt, sampler, sequence = [1, *block.ids, 2], sampling.sampler(engine.vocab_size), engine.new_sequence()
    sampler.accept(np.array([1, 2], np.int32))
    expected, new = list[int](), prompt
    while len(expected) < 12:
        expected.append(sampler.sample(engine.step([(sequence, new)]), 0))
        sampler.accept(expected[-1])
        new = expected[-1:]
    assert list(engine.generate(prompt, sampling)) == expected


class Eager(Pace):
    def cost(self, tokens: int) -> float:  # noqa: ARG002
        return 0.5


def test_rows_are_never_proposed(engine: Engine) -> None:
    text = [1, 2, 3, 300, 301, 4, 1, 2]
    assert Speculation(np.array(text, np.int32), Eager(), 300).propose(10) == [3]
    assert Speculation(np.array([*text, 3], np.int32), Eager(), 300).propose(10) == []
    block = engine.give_rows(_picture(1))
    ids = [1, 2, *block.ids] * 3 + [1, 2]
    plain = list(engine.generate(ids, GREEDY, speculate=False))
    engine.stepper.pace = Eager()
    assert list(engine.generate(ids, GREEDY)) == plain


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((3, WIDTH + 1), np.float32),
        np.zeros((0, WIDTH), np.float32),
        np.zeros(WIDTH, np.float32),
        np.zeros((3, WIDTH)),
        np.full((3, WIDTH), np.nan, np.float32),
        [["a"]],
    ],
    ids=["width", "none", "flat", "float64", "nan", "words"],
)
def test_rows_that_are_refused(engine: Engine, rows: Any) -> None:
    with pytest.raises(EngineError):
        engine.give_rows(rows)


@pytest.mark.parametrize("token", [299, 310, 2**31 - 1])
def test_ids_that_name_nothing_are_refused_everywhere(engine: Engine, token: int) -> None:
    block = engine.give_rows(_picture(1))
    if token < 300:
        del block  # 300 to 309 die
        token = 305
    for use in (
        lambda: engine.logits([1, token]),
        lambda: engine.step([(engine.new_sequence(), [1, token])]),
        lambda: next(engine.generate([1, token])),
        lambda: Batch(engine).add([1, token]),
    ):
        with pytest.raises(EngineError, match=f"token id {token} is outside the vocabulary of 300"):
            use()


def test_ids_do_not_run_over(engine: Engine) -> None:
    engine.stepper.given._next = 2**31 - 15
    block = engine.give_rows(_picture(1))
    with pytest.raises(EngineError, match="all ids"):
        engine.give_rows(_picture(2))
    assert np.isfinite(engine.logits([1, *block.ids])).all()
