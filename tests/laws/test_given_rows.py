"""Law 3 for rows that a text is given: those of the table are its tokens, bit for bit; on others all readers agree."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tiny_packed
from tercet import kernels
from tercet.modules import ops
from tercet.program import interpreter
from tercet.runtime import Engine, GivenRows

# The second multiplies what its table holds, and the third's is stored rotated, while its residual stream is not.
FAMILIES = ["llama", "gemma3_text", "rotated"]
IDS = np.random.default_rng(7).integers(0, 300, 70).astype(np.int32)
PICTURES = slice(5, 20), slice(40, 70)  # of the ids: what is given as rows


@functools.cache
def _model(family: str) -> Any:
    return tiny_packed.model("llama", tercet={"table": True}) if family == "rotated" else tiny_packed.model(family)


@functools.cache
def _engine(family: str, **options: Any) -> Engine:
    return Engine(*_model(family), **{"threads": 1, "context": 128, **options})


@functools.cache
def _expected(family: str) -> NDArray[np.float32]:
    return _engine(family, isa="scalar").logits(IDS)


def _given(engine: Engine, family: str) -> tuple[NDArray[np.int32], list[GivenRows]]:
    """The ids with two stretches of them given as rows."""
    embed = engine.program.ops[0]
    table = _model(family)[1][embed.weight]
    ids, blocks = IDS.copy(), []
    for place in PICTURES:
        rows = np.stack([kernels.row(table, token, factor=embed.factor, isa=engine.isa) for token in IDS[place]])
        blocks.append(engine.give_rows(kernels.rotate(rows, embed.dim) if embed.dim else rows))
        ids[place] = blocks[-1].ids
    return ids, blocks


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_the_table_are_its_tokens(family: str, isa: str) -> None:
    engine = _engine(family, isa=isa)
    ids, blocks = _given(engine, family)
    assert min(blocks[0].ids) >= engine.vocab_size
    assert np.array_equal(engine.logits(ids), _expected(family))


@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_in_every_company_and_cache(data: st.DataObject) -> None:
    """Steps of any size beside another text's, rewinds and forks."""
    engine, expected = _engine("gemma3_text", threads=2, chunk=16), _expected("gemma3_text")
    ids, _blocks = _given(engine, "gemma3_text")
    sequence, other = engine.new_sequence(), engine.new_sequence()
    for _ in range(data.draw(st.integers(1, 6))):
        if len(sequence) and data.draw(st.booleans(), "rewind"):
            sequence.rewind(data.draw(st.integers(0, len(sequence))))
        if data.draw(st.booleans(), "fork"):
            sequence = sequence.fork()
        begin = len(sequence)
        if begin == len(ids):
            continue
        end = data.draw(st.integers(begin + 1, len(ids)), "end")
        got = engine.step([(other, [1]), (sequence, ids[begin:end])])
        assert np.array_equal(got[1], expected[end - 1])
        assert sequence.ids == ids[:end].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_float_mode_the_interpreter_and_torch_agree(family: str) -> None:
    program, packed = _model(family)
    tensors = tiny_packed.floats(packed)
    width = program.widths[program.ops[0].output]
    rows = np.random.default_rng(1).normal(size=(12, width)).astype(np.float32)
    engine = Engine(program, packed, activations="float32", kv="float32", threads=1)
    block = engine.give_rows(rows)
    assert block.ids == range(program.vocab_size, program.vocab_size + 12)  # as the other readers number their table
    ids = np.concatenate([IDS[:9], np.array(block.ids)[::-1], IDS[9:20]])
    expected = interpreter.logits(program, tensors, ids, rows)
    assert expected.std() > 0.1  # else the comparison says nothing
    assert np.abs(expected - interpreter.logits(program, tensors, ids, rows[::-1])).max() > 0.1
    buffers: ops.Buffers = {"ids": torch.from_numpy(ids)[None].long(), "given": torch.from_numpy(rows)}
    weights = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for op in program.ops:
        ops.run(program, op, buffers, weights)
    for found in (engine.logits(ids), buffers["logits"][0].numpy()):
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
