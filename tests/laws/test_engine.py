"""Law 3 for whole models: the logits are the same bits, whatever computes them and in whatever company."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tiny
import tiny_packed
from tercet import kernels
from tercet.program import interpreter
from tercet.runtime import Engine

FORMATS = ["t2", "b1", "q8", "q4", "f16", "f32", "t19", "transforms"]
LENGTH = 70  # more than one block of keys


TRANSFORMS = {"rotate": True, "clip": 3.0, "table": True}
TURNED = {"rotate": True, "stream": True, "table": True}


@functools.cache
def _model(family: str, linear: str = "t2") -> tuple[Any, Any]:
    if linear == "transforms":
        return tiny_packed.model(family, "t2", group=32, tercet=TRANSFORMS)
    if linear == "turned":  # of widths that are no powers of two
        return tiny_packed.model(
            family, "t2", group=32, tercet=TURNED, hidden_size=96, intermediate_size=160, head_dim=24
        )
    if linear == "t19":
        return tiny_packed.model(family, linear, group=128, hidden_size=128, intermediate_size=256)
    return tiny_packed.model(family, linear, group=32)


@functools.cache
def _engine(family: str = "llama", linear: str = "t2", **options: Any) -> Engine:
    return Engine(*_model(family, linear), **{"threads": 1, "context": 128, **options})


@functools.cache
def _expected(
    family: str = "llama", linear: str = "t2", kv: str = "float16", length: int = LENGTH
) -> NDArray[np.float32]:
    return _engine(family, linear, isa="scalar", kv=kv).logits(_ids(length))


def _ids(n: int = LENGTH) -> NDArray[np.int32]:
    return np.random.default_rng(7).integers(0, tiny.SHAPE["vocab_size"], n).astype(np.int32)


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_same_on_every_instruction_set(family: str, isa: str) -> None:
    assert np.array_equal(_engine(family, isa=isa).logits(_ids()), _expected(family))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_same_with_rotated_inputs_and_clipped_results(family: str) -> None:
    expected = _expected(family, "transforms")
    assert not np.array_equal(expected, _expected(family))
    for isa in kernels.backends():
        assert np.array_equal(_engine(family, "transforms", isa=isa, threads=2, chunk=7).logits(_ids()), expected)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_same_with_folded_rotations(family: str) -> None:
    program = _model(family, "turned")[0]
    assert {op.dim for op in program.ops if op.kind in ("embed", "rotate")} == {96, 160}
    for isa in kernels.backends():
        found = _engine(family, "turned", isa=isa, threads=2, chunk=7).logits(_ids())
        assert np.array_equal(found, _expected(family, "turned"))


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("linear", FORMATS)
def test_same_for_every_format(linear: str, isa: str) -> None:
    assert np.array_equal(_engine("llama", linear, isa=isa).logits(_ids()), _expected("llama", linear))


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 5, 64, 128])
def test_same_for_threads_and_chunks(family: str, threads: int, chunk: int) -> None:
    engine = _engine(family, threads=threads, chunk=chunk)
    assert np.array_equal(engine.logits(_ids()), _expected(family))
    last = engine.step([(engine.new_sequence(), _ids())])
    assert np.array_equal(last[0], _expected(family)[-1])


@pytest.mark.parametrize("kv", ["float16", "int8", "float32"])
@pytest.mark.parametrize("isa", kernels.backends())
def test_same_for_either_cache_type(kv: str, isa: str) -> None:
    assert np.array_equal(_engine(isa=isa, kv=kv, threads=2).logits(_ids()), _expected(kv=kv))


@pytest.mark.parametrize("family", ["llama", "mistral"])  # full attention, and a window of 8
@pytest.mark.parametrize("kv", ["float16", "int8"])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_same_for_every_cache_history(family: str, kv: str, data: st.DataObject) -> None:
    """Steps of any size, rewinds and forks, wrong turns taken back: every logit is as in one pass."""
    engine, expected, ids = _engine(family, threads=2, chunk=16, kv=kv), _expected(family, kv=kv), _ids()
    sequence = engine.new_sequence()
    for _ in range(data.draw(st.integers(1, 6))):
        if len(sequence) and data.draw(st.booleans(), "rewind"):
            sequence.rewind(data.draw(st.integers(0, len(sequence))))
        if data.draw(st.booleans(), "fork"):
            sequence, left = sequence.fork(), sequence
            if len(left) + 5 < engine.context:
                engine.step([(left, _ids()[:5][::-1])])
        if data.draw(st.booleans(), "wrong turn"):
            length = len(sequence)
            engine.step([(sequence, (ids[: data.draw(st.integers(1, 40))] + 1) % 300)])
            sequence.rewind(length)
        begin = len(sequence)
        if begin == LENGTH:
            continue
        end = data.draw(st.integers(begin + 1, LENGTH), "end")
        got = engine.step([(sequence, ids[begin:end])])
        assert np.array_equal(got[0], expected[end - 1])
        assert sequence.ids == ids[:end].tolist()


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_same_in_every_company(data: st.DataObject) -> None:
    """Several sequences of different lengths in one step do not see each other."""
    engine = _engine("mistral", threads=3, chunk=data.draw(st.sampled_from([1, 7, 128])))
    count = data.draw(st.integers(1, 4))
    texts = [np.roll(_ids(), i) for i in range(count)]
    alone = [_engine("mistral").logits(text) for text in texts]
    sequences = [engine.new_sequence() for _ in texts]
    for _ in range(3):
        parts = []
        for i in data.draw(st.permutations(range(count))):
            begin = len(sequences[i])
            end = data.draw(st.integers(begin, min(begin + 30, LENGTH)))
            if end > begin:
                parts.append((i, end, texts[i][begin:end]))
        if parts:
            got = engine.step([(sequences[i], ids) for i, _, ids in parts])
            for row, (i, end, _) in zip(got, parts, strict=True):
                assert np.array_equal(row, alone[i][end - 1])


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("form", ["t19", "t5"])
def test_the_other_ternary_formats_give_the_bits_of_t2(form: str, isa: str, caplog: pytest.LogCaptureFixture) -> None:
    shapes = {"hidden_size": 128, "intermediate_size": 256}
    program, tensors = tiny_packed.model("llama", form, group=128, **shapes)
    _, as_t2 = tiny_packed.model("llama", "t2", group=128, **shapes)
    logits = Engine(program, tensors, isa=isa).logits(_ids())
    assert ("converted to t2" in caplog.text) == (not kernels.reads(form, isa))
    assert np.array_equal(logits, Engine(program, as_t2, isa=isa).logits(_ids()))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("linear", ["t2", "b1", "f16", "transforms"])
def test_float_mode_is_the_reference(family: str, linear: str) -> None:
    program, tensors = _model(family, linear)
    got = Engine(program, tensors, activations="float32", kv="float32").logits(_ids())
    expected = interpreter.logits(program, tiny_packed.floats(tensors), _ids())
    assert np.abs(got - expected).max() / np.abs(expected).max() < 1e-4
    assert expected.std() > 0.1  # else the comparison says nothing


def test_int8_activations_differ_from_float_ones_but_not_by_much() -> None:
    exact = _engine(activations="float32", kv="float32").logits(_ids())
    error = np.abs(_expected() - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.3
