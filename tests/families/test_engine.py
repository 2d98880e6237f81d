"""The native engine runs every family's program: the interpreter's logits, transformers' greedy tokens; and as well
where its linears are rotated."""

from __future__ import annotations

import numpy as np
import pytest

import tiny
from tercet import families
from tercet.program import interpreter
from tercet.program.hadamard import rotated
from tercet.runtime import Engine


@pytest.mark.parametrize("family", tiny.OTHERS)
def test_the_engine_computes_what_transformers_computes(family: str) -> None:
    made, config, tensors = tiny.model(family)
    ids, wanted = tiny.ids(), tiny.reference(made, tiny.ids())
    for given in ({}, {"rotate": 16, "clip": 1e4}):
        program = families.model({**config, "tercet": given}).text
        blocks = program.rotations
        turned = {name: rotated(value, blocks[name]) if name in blocks else value for name, value in tensors.items()}
        for found in (
            Engine(program, turned, activations="float32", kv="float32", threads=1).logits(ids),
            interpreter.logits(program, turned, ids),
        ):
            assert np.abs(found - wanted).max() / np.abs(wanted).max() < 3e-5
            assert np.array_equal(found.argmax(1), wanted.argmax(1))
