"""Fitted 4-bit tables: better than rounding by what they are fitted to, which is what the head really reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from tercet import families
from tercet.calibrate.integers import fitted_integers
from tercet.calibrate.tables import LOOKED_UP, READ, _moments, fitted_tables
from tercet.errors import QuantizeError
from tercet.program import interpreter
from tercet.recipe import Recipe
from tercet.tensor import IntTensor


def case(rows: int = 50, width: int = 64) -> tuple[np.ndarray, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, width)) @ rng.normal(size=(width, width)) * np.exp(rng.normal(size=width))
    hessian = torch.from_numpy((x.T @ x / 500).astype(np.float32))
    return rng.standard_t(4, size=(rows, width)).astype(np.float32), hessian + 0.01 * torch.eye(width)


def error(tensor: IntTensor, weight: np.ndarray, hessian: torch.Tensor) -> float:
    rest = torch.from_numpy(tensor.dequantize() - weight)
    return float(((rest @ hessian) * rest).sum())


@pytest.mark.parametrize("group", [16, 64])
def test_it_beats_rounding_by_its_own_measure(group: int) -> None:
    weight, hessian = case()
    plain, alone = IntTensor.quantize(weight, 4, group), fitted_integers(weight, group)
    weighed, identity = fitted_integers(weight, group, hessian), torch.eye(weight.shape[1])
    assert error(alone, weight, identity) < error(plain, weight, identity)
    assert error(weighed, weight, hessian) < 0.8 * error(plain, weight, hessian)
    assert (weighed.bits, weighed.group_size) == (4, group)


def test_rows_stand_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, hessian = case()
    whole = fitted_integers(weight, 32, hessian)
    monkeypatch.setattr("tercet.calibrate.integers.ROWS", 7)
    assert fitted_integers(weight, 32, hessian).equals(whole)


def test_zeros_and_numbers_too_large() -> None:
    weight, hessian = case()
    weight[3] = 0
    weight[4, :16] = 0
    found = fitted_integers(weight, 16, hessian)
    assert not found.dequantize()[3].any()
    weight[5, 0] = 1e9
    with pytest.raises(QuantizeError, match="too large for float16"):
        fitted_integers(weight, 16, hessian)


@pytest.mark.parametrize("family", ["llama", "mistral"])  # with a tied table, and without
def test_tables_are_fitted_to_what_the_head_reads(family: str) -> None:
    _, config, tensors = tiny.model(family)
    model = families.model(config)
    program, windows = model.text, np.stack([tiny.ids(24, seed=seed) for seed in range(5)])
    plan = Recipe.parse(
        {
            "rules": [{"role": ["embedding", "head"], "keep": "int4"}, {"match": "*", "quantizer": "l2"}],
            "group_size": 32,
        }
    ).plan(model)
    found = fitted_tables(program, tensors, plan, windows)
    embedding, head = program.ops[0].weight, program.ops[-1].weight
    assert set(found) == {embedding, head}
    steps = [list(interpreter.steps(program, tensors, row))[-1][1][0] for row in windows]
    rows = np.concatenate(steps).astype(np.float64)
    moments = rows.T @ rows
    wanted = torch.from_numpy((moments / moments.diagonal().mean()).astype(np.float32))
    assert torch.allclose(_moments(program, tensors, torch.from_numpy(windows)), wanted, atol=1e-3)
    damped = wanted + (LOOKED_UP if head == embedding else READ) * torch.eye(len(wanted))
    plain = IntTensor.quantize(tensors[head], 4, 32)
    assert error(found[head], tensors[head], damped) < 0.9 * error(plain, tensors[head], damped)
    for name in (embedding, program.linears[3]):
        broken = {**tensors, name: np.full_like(tensors[name], np.nan)}
        with pytest.raises(QuantizeError, match=f"{name}: weight has values that are not finite"):
            fitted_tables(program, broken, plan, windows)
    kept = Recipe.parse(
        {
            "rules": [{"role": ["embedding", "head"], "keep": "int8"}, {"match": "*", "quantizer": "l2"}],
            "group_size": 32,
        }
    ).plan(model)
    assert fitted_tables(program, tensors, kept, windows) == {}
