"""The operations calibration runs, against the interpreter that is every reader's reference."""

import numpy as np
import pytest
import torch

import tiny
from tercet import families, interpreter
from tercet.calibrate.forward import Buffers, run


@pytest.mark.parametrize("transforms", [{}, {"rotate": True, "clip": 2.0}])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_equals_the_interpreter(family: str, transforms: dict[str, object]) -> None:
    _, config, tensors = tiny.model(family, tercet=transforms)
    program = families.program(config)
    tokens = np.stack([tiny.ids(40, seed=seed) for seed in (1, 2)])
    buffers: Buffers = {"ids": torch.from_numpy(tokens)}
    weights = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for op in program.ops:
        run(program, op, buffers, weights)
    for row, window in zip(buffers["logits"].numpy(), tokens, strict=True):
        expected = interpreter.logits(program, tensors, window)
        assert np.abs(row - expected).max() < 1e-4 * np.abs(expected).max()
