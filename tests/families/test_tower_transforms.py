"""Rotated inputs and clipped results of the linears of towers: three readers of one program agree, and a rotation that
the weights know of changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_towers as tiny
from tercet import families
from tercet.errors import ModelError
from tercet.modules.ops import Buffers, run
from tercet.program import Model, Program, interpreter
from tercet.program.hadamard import rotated
from tercet.program.patches import patches
from tercet.runtime.pictures.encoder import Encoder

Tensors = dict[str, NDArray[np.float32]]
TERCET: dict[str, Any] = {"image": {"rotate": 16, "clip": 2.0}, "text": {"rotate": True, "clip": 1.0, "blocks": [1, 2]}}


def made(family: str, tercet: dict[str, Any]) -> tuple[Model, Tensors]:
    _, config, tensors = tiny.model(family)
    return families.model({**config, "tercet": tercet}), tensors


def rows(model: Model, part: str) -> NDArray[Any]:
    return patches(tiny.pixels(size=model.pixels.size), model.pixels.patch) if part == "image" else tiny.texts()


def relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


def by_torch(program: Program, tensors: Tensors, given: NDArray[Any]) -> NDArray[np.float32]:
    buffers: Buffers = {program.reads: torch.from_numpy(given)}
    weights = {name: torch.from_numpy(np.array(tensors[name])) for name in program.weights}
    with torch.no_grad():
        for op in program.ops:
            run(program, op, buffers, weights)
    return buffers["embedding"][:, 0].numpy()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_interpreter_engine_and_torch_agree(family: str) -> None:
    model, tensors = made(family, TERCET)
    plain, _ = made(family, {})
    encoder = Encoder(model, tensors, activations="float32", threads=1)
    native = {"image": encoder.encode_pixels(tiny.pixels()), "text": encoder.encode_ids(tiny.texts())}
    for part, program in model.parts.items():
        kinds = [op.kind for op in program.ops]
        assert kinds.count("rotate") > 0
        assert kinds.count("clip") > 0
        wanted = interpreter.embeddings(program, tensors, rows(model, part))
        assert relative(native[part], wanted) < 1e-5
        assert relative(by_torch(program, tensors, rows(model, part)), wanted) < 1e-5
        assert relative(interpreter.embeddings(plain.parts[part], tensors, rows(model, part)), wanted) > 1e-2


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_rotated_weights_give_the_same_embeddings(family: str) -> None:
    model, tensors = made(family, {"image": {"rotate": True}, "text": {"rotate": 16}})
    plain, _ = made(family, {})
    blocks = model.rotations
    assert set(blocks) == set(model.linears)
    turned = {name: rotated(value, blocks[name]) if name in blocks else value for name, value in tensors.items()}
    for part, program in model.parts.items():
        wanted = interpreter.embeddings(plain.parts[part], tensors, rows(model, part))
        assert relative(interpreter.embeddings(program, turned, rows(model, part)), wanted) < 1e-5


def test_a_pooling_head_is_a_block_of_its_own() -> None:
    """SigLIP's picture: two layers and the head."""
    model, _ = made("siglip", {"image": {"clip": 3.0, "blocks": [2, 3]}})
    clipped = [op for op in model.image.ops if op.kind == "clip"]
    assert len(clipped) == len(model.image.blocks[2]) == 6
    assert not [op for op in model.text.ops if op.kind == "clip"]
    with pytest.raises(ModelError, match="tercet: text: blocks: 0 is 2"):
        made("siglip", {"text": {"clip": 3.0, "blocks": [2, 3]}})
