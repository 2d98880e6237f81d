"""The operations calibration runs, against the interpreter that is every reader's reference."""

import numpy as np
import pytest
import torch

import tiny
import tiny_towers
from tercet import families
from tercet.modules.ops import Buffers, run
from tercet.program import interpreter
from tercet.program.patches import patches


@pytest.mark.parametrize("transforms", [{}, {"rotate": True, "clip": 2.0}])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_the_interpreter(family: str, transforms: dict[str, object]) -> None:
    _, config, tensors = tiny.model(family, tercet=transforms)
    program = families.model(config).text
    tokens = np.stack([tiny.ids(40, seed=seed) for seed in (1, 2)])
    buffers: Buffers = {"ids": torch.from_numpy(tokens)}
    weights = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for op in program.ops:
        run(program, op, buffers, weights)
    for row, window in zip(buffers["logits"].numpy(), tokens, strict=True):
        expected = interpreter.logits(program, tensors, window)
        assert np.abs(row - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_towers_equal_the_interpreter(family: str) -> None:
    _, config, tensors = tiny_towers.model(family)
    towers = families.model(config)
    weights = {name: torch.from_numpy(value) for name, value in tensors.items()}
    rows = {"patches": patches(tiny_towers.pixels(3), towers.pixels.patch), "ids": tiny_towers.texts(4)}
    rows["ids"][0, 1:] = 5  # a text without an end
    for program, source in ((towers.image, "patches"), (towers.text, "ids")):
        buffers: Buffers = {source: torch.from_numpy(rows[source])}
        for op in program.ops:
            run(program, op, buffers, weights)
        found = buffers["embedding"][:, 0].numpy()
        expected = interpreter.embeddings(program, tensors, rows[source])
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
