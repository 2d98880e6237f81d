"""Rotated inputs and clipped results of a block's linears, in every family, against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import tiny
from tercet import families
from tercet.errors import ModelError
from tercet.program import Program, interpreter
from tercet.program.hadamard import rotated


def program_of(config: dict[str, Any], **transforms: Any) -> Program:
    return families.model({**config, "tercet": transforms}).text


def turned(program: Program, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights a rotated program reads."""
    blocks = program.rotations
    return {name: rotated(tensor, blocks[name]) if name in blocks else tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("rotate", [True, 16])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_rotated_model_computes_the_same(family: str, rotate: bool | int) -> None:
    made, config, tensors = tiny.model(family)
    program = program_of(config, rotate=rotate)
    assert set(program.rotations) == set(program.linears)
    for name, block in program.rotations.items():
        width = program.weights[name].shape[1]
        assert block == (16 if rotate == 16 else width & -width)
    wanted = tiny.reference(made, tiny.ids())
    error = np.abs(interpreter.logits(program, turned(program, tensors), tiny.ids()) - wanted).max()
    assert error < 2e-5 * np.abs(wanted).max()
    assert np.abs(interpreter.logits(program, tensors, tiny.ids()) - wanted).max() > 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.OTHERS])
def test_tables_may_be_stored_rotated(family: str) -> None:
    _, config, tensors = tiny.model(family)
    plain, program = program_of(config), program_of(config, table=True)
    assert set(program.rotations) == {program.ops[0].weight, program.ops[-1].weight}
    assert program.last_norm.weight == plain.ops[-2].weight
    wanted = interpreter.logits(plain, tensors, tiny.ids())
    found = interpreter.logits(program, turned(program, tensors), tiny.ids())
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert np.abs(interpreter.logits(program, tensors, tiny.ids()) - wanted).max() > 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_linears_of_the_chosen_blocks_are_clipped(family: str) -> None:
    made, config, tensors = tiny.model(family)
    program = program_of(config, clip=1.5, blocks=[1, 2])
    plain = tiny.reference(made, tiny.ids())
    for name, module in made.named_modules():
        if isinstance(module, torch.nn.Linear) and name.startswith("model.layers.1."):
            module.register_forward_hook(lambda _module, _inputs, output: output.clamp(-1.5, 1.5))
    wanted = tiny.reference(made, tiny.ids())
    assert np.abs(wanted - plain).max() > 0.1 * np.abs(plain).max()
    found = interpreter.logits(program, tensors, tiny.ids())
    assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_linears_of_one_input_stay_together_and_blocks_without_have_none() -> None:
    program = program_of(tiny.config("llama", num_hidden_layers=3), rotate=True, clip=2, blocks=[1, 2])
    kinds = [op.kind for op in program.ops]
    assert kinds.count("rotate") == 4
    assert kinds.count("clip") == 7
    first = kinds.index("rotate")
    assert kinds[first - 1 : first + 7] == ["rmsnorm", "rotate", *["linear"] * 3, *["clip"] * 3]
    assert list(program.rotations) == list(program.blocks[1])
    assert [op.limit for op in program.ops if op.kind == "clip"] == [2.0] * 7


@pytest.mark.parametrize("given", [None, {}, {"rotate": False}, {"rotate": None, "clip": None, "blocks": None}])
def test_nothing_asked_for_is_nothing(given: Any) -> None:
    config = tiny.config("llama")
    assert families.model({**config, "tercet": given}).text.ops == families.model(config).text.ops


REFUSED: list[tuple[Any, str]] = [
    ([], "tercet is a list; it must be an object"),
    (True, "tercet is True; it must be an object"),
    ({"rotation": True}, "tercet: rotation is True; it must be absent"),
    ({"rotate": "yes"}, "tercet: rotate is 'yes'; it must be a whole number"),
    ({"rotate": 1}, "rotate is 1"),
    ({"rotate": 50}, "rotate is 50; it must be true, false or columns of a block that can be rotated, such as a power"),
    ({"stream": 1}, "stream is 1; it must be true or false"),
    ({"rotate": 128}, "rotate is 128; it must divide the width of each linear: 64"),
    ({"rotate": 64.0}, "rotate is 64.0"),
    ({"clip": 0}, "clip is 0; it must be a number from 1e-06"),
    ({"clip": -100.0}, "clip is -100.0"),
    ({"clip": float("nan")}, "clip is nan"),
    ({"clip": True}, "clip is True"),
    ({"clip": "100"}, "clip is '100'"),
    ({"blocks": 1}, "blocks is 1; it must be [first, end)"),
    ({"blocks": [0]}, "blocks is a list; it must be [first, end)"),
    ({"blocks": [1, 1]}, "blocks: 1 is 1; it must be a whole number from 2 to 2"),
    ({"blocks": [0, 3]}, "blocks: 1 is 3"),
    ({"blocks": [-1, 2]}, "blocks: 0 is -1"),
    ({"blocks": [False, 2]}, "blocks: 0 is False"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_refused_with_one_clear_line(given: Any, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        families.model({**tiny.config("llama"), "tercet": given})
    assert message in str(caught.value)
    assert str(caught.value).startswith("config.json")
    assert "\n" not in str(caught.value)
