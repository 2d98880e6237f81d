"""Folded rotations: the function that was, in every family that allows it, and named where one does not."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from tercet import families
from tercet.errors import ModelError
from tercet.program import Program, interpreter
from tercet.program.folding import Folded, folding
from tercet.program.hadamard import rotated

EVERY = [*tiny.FAMILIES, *tiny.OTHERS]
UNFOLDED = {  # a LayerNorm, or a norm of what is added, stands between the linears and the stream
    "phi", "cohere", "cohere2", "gpt_neox", "olmo", "stablelm", "starcoder2", "gemma3_text", "glm4", "exaone4", "olmo2",
    "olmo3",
}  # fmt: skip


def program_of(config: dict[str, object]) -> Program:
    return families.model(config).text


@pytest.mark.parametrize("table", [False, True])
@pytest.mark.parametrize("family", EVERY)
def test_a_folded_model_computes_the_same(family: str, table: bool) -> None:
    _, config, tensors = tiny.model(family)
    plain, how = program_of(config), folding(program_of(config))
    assert (how is None) == (family in UNFOLDED)
    if how is None:
        with pytest.raises(ModelError, match="residual stream cannot be rotated"):
            program_of({**config, "tercet": {"stream": True}})
        return
    program = program_of({**config, "tercet": {"stream": True, "rotate": True, "table": table}})
    tables = {plain.ops[0].weight, plain.ops[-1].weight} if table else set()
    assert set(program.rotations) == {names[-1] for names in program.blocks} | tables
    turned = Folded(tensors, how)
    weights = {
        name: rotated(tensor, program.rotations[name]) if name in program.rotations else tensor
        for name, tensor in turned.items()
    }
    wanted = interpreter.logits(plain, tensors, tiny.ids())
    found = interpreter.logits(program, weights, tiny.ids())
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    for name in plain.linears:  # each is another matrix now
        assert np.abs(weights[name] - tensors[name]).max() > 0.1 * np.abs(tensors[name]).max(), name
    embedding = plain.ops[0].weight
    assert (weights[embedding] is tensors[embedding]) == (not table)
    assert np.array_equal(weights[plain.ops[-2].weight], tensors[plain.ops[-2].weight])


def test_one_rotation_a_block_and_two_at_the_ends() -> None:
    program = program_of({**tiny.config("llama"), "tercet": {"stream": True, "rotate": True}})
    turned = [op.inputs[0] for op in program.ops if op.kind == "rotate"]
    assert turned == ["x", *["inner"] * len(program.blocks), "x"]
    program = program_of({**tiny.config("llama"), "tercet": {"stream": True}})
    assert [op.inputs[0] for op in program.ops if op.kind == "rotate"] == ["x", "x"]


def test_values_that_are_clipped_are_not_folded() -> None:
    config = tiny.config("llama")
    clipped = program_of({**config, "tercet": {"clip": 2.0}})
    assert folding(clipped) is None
    with pytest.raises(ModelError, match="absent where the residual stream is rotated"):
        program_of({**config, "tercet": {"clip": 2.0, "stream": True}})
