"""Zeros, flips and scales of a student's codes, counted as the definitions say."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tercet.quantizers import AbsMeanConfig, CatQConfig, freeze, quantize_
from tercet.train.statistics import Statistics


def model(shapes: list[tuple[int, int]], seed: int = 0) -> nn.ModuleList:
    torch.manual_seed(seed)
    made = nn.ModuleList(nn.Linear(width, rows, bias=False) for rows, width in shapes)
    quantize_(made, {f"{index}.weight": AbsMeanConfig() for index in range(len(shapes))})
    return made


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.integers(0, 99))
def test_counts(shapes: list[tuple[int, int]], seed: int) -> None:
    made, statistics = model(shapes, seed), Statistics()
    before = freeze(made)
    assert statistics.count(made)["flips"] == 0
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    after, counted = freeze(made), statistics.count(made)
    codes = [np.concatenate([tensor.codes.ravel() for tensor in tensors.values()]) for tensors in (before, after)]
    scales = np.concatenate([tensor.scale.ravel() for tensor in after.values()]).astype(np.float64)
    assert counted["flips"] == (codes[0] != codes[1]).mean()
    assert counted["zeros"] == (codes[1] == 0).mean()
    assert counted["scale"]["mean"] == pytest.approx(scales.mean())
    assert (counted["scale"]["min"], counted["scale"]["max"]) == (scales.min(), scales.max())
    assert Statistics(statistics.codes).count(made)["flips"] == 0  # as a checkpoint keeps them


def test_a_drift_of_zeros_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    made, statistics = model([(8, 64), (8, 64)]), Statistics()
    statistics.count(made)
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        made[1].parametrizations.weight.original[:, ::8] *= 20  # the mean rises, the others become zeros
        statistics.count(made)
        statistics.count(made)
    (line,) = caplog.messages
    assert line.startswith("1.weight: ")
    assert "of the codes were zeros at the start, now" in line


def test_soft_codes_are_counted_too() -> None:
    made = nn.Sequential(nn.Linear(64, 8, bias=False))
    quantize_(made, {"0.weight": CatQConfig()})
    made[0].parametrizations.weight[0].schedule(0.5)
    assert 0.1 < Statistics().count(made)["zeros"] < 0.9


def test_nothing_is_quantized() -> None:
    assert Statistics().count(nn.Linear(3, 3)) == {}
