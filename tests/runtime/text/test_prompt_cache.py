"""Prompts that begin alike share keys and values: less work, the same tokens, bounded memory."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_packed
from tercet.runtime import Engine, Sampling

PROGRAM, TENSORS = tiny_packed.model()
BLOCK = 64 * 2 * 2 * 2 * 16 * 2  # 64 positions: keys and values, layers, KV heads, head size, bytes
SYSTEM = np.random.default_rng(1).integers(0, 300, 70).tolist()
GREEDY = Sampling(max_tokens=4)


class Counting(Engine):
    """Counts the tokens it computes."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.computed, self._real = 0, self.stepper.step
        self.stepper.step = self._counted  # type: ignore[method-assign]

    def _counted(self, caches: Any, ids: list[Any], *rest: Any) -> None:
        self.computed += sum(len(each) for each in ids)
        self._real(caches, ids, *rest)


def _engine(blocks: int = 100) -> Counting:
    return Counting(PROGRAM, TENSORS, threads=1, context=256, prompt_cache_bytes=blocks * BLOCK)


def _answer(engine: Engine, ids: list[int]) -> list[int]:
    return list(engine.generate(ids, GREEDY, speculate=False))


def test_only_what_is_new_is_computed() -> None:
    engine, cold = _engine(), _engine(0)
    first = _answer(engine, [*SYSTEM, 1, 2, 3])
    assert engine.computed == 73 + 3
    assert _answer(engine, [*SYSTEM, 4, 5]) == _answer(cold, [*SYSTEM, 4, 5])
    assert engine.computed == 76 + 2 + 3
    assert _answer(engine, [*SYSTEM, 1, 2, 3, *first, 9]) == _answer(cold, [*SYSTEM, 1, 2, 3, *first, 9])
    assert engine.computed == 81 + 2 + 3  # the last token of an answer is not computed until something follows it
    assert _answer(engine, [*SYSTEM, 4, 5]) == _answer(cold, [*SYSTEM, 4, 5])
    assert engine.computed == 86 + 1 + 3  # the same again: its last token gives the logits
    assert len(cold.prompt_cache) == 0


def test_logits_after_a_shared_prefix_are_the_same_bits() -> None:
    engine = _engine()
    _answer(engine, [*SYSTEM, 1, 2, 3])
    shared = engine.prompt_cache.sequence(np.array([*SYSTEM, 7], np.int32))
    assert shared.ids == SYSTEM
    assert np.array_equal(engine.step([(shared, [7])])[0], engine.logits([*SYSTEM, 7])[-1])


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_any_history_gives_the_tokens_of_none(data: st.DataObject) -> None:
    engine, cold = _engine(data.draw(st.integers(1, 6))), _engine(0)
    for _ in range(6):
        cut = data.draw(st.integers(0, 70))
        ids = [*SYSTEM[:cut], *data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=80))]
        assert _answer(engine, ids) == _answer(cold, ids)
        assert engine.prompt_cache.nbytes <= engine.prompt_cache.most_bytes


def test_the_one_not_used_for_longest_goes_first() -> None:
    engine = _engine(2)  # two texts of one block
    a, b, c = [[token] * 10 for token in (1, 2, 3)]
    for ids in (a, b, a, c):
        _answer(engine, ids)
    engine.computed = 0
    _answer(engine, a)
    assert engine.computed == 1 + 3
    _answer(engine, b)
    assert engine.computed == 1 + 3 + 10 + 3
    assert len(engine.prompt_cache) == 2


def test_a_text_that_goes_on_takes_the_place_of_its_beginning() -> None:
    engine = _engine()
    answer = _answer(engine, SYSTEM)
    _answer(engine, [*SYSTEM, *answer, 5])
    assert len(engine.prompt_cache) == 1
    _answer(engine, SYSTEM[:9])
    assert len(engine.prompt_cache) == 2  # its answer differs
    assert engine.kv_bytes == engine.prompt_cache.nbytes
    engine.prompt_cache.clear()
    assert engine.kv_bytes == 0


def test_what_is_too_large_is_not_kept() -> None:
    engine = _engine(1)
    _answer(engine, [5] * 10)
    _answer(engine, SYSTEM)
    assert len(engine.prompt_cache) == 1
    assert engine.prompt_cache.nbytes == BLOCK


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_generation_left_alone_is_kept_as_far_as_it_came(left: int) -> None:
    engine = _engine()
    answer = engine.generate(SYSTEM, Sampling(max_tokens=20))
    for _ in range(left):
        next(answer)
    answer.close()
    assert len(engine.prompt_cache) == min(left, 1)
    assert _answer(engine, SYSTEM) == _answer(_engine(0), SYSTEM)


def test_an_engine_is_freed_with_its_cache() -> None:
    engine = Engine(PROGRAM, TENSORS, threads=1, context=256)
    _answer(engine, SYSTEM)
    gone = weakref.ref(engine)
    del engine
    assert gone() is None
