"""BiLLM against a reference in numpy loops that writes down every bit it stores, and on a whole tiny model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny
from tercet import families
from tercet.calibrate import billm_dense, dequantized
from tercet.calibrate.billm import binarize
from tercet.calibrate.statistics import damped
from tercet.quantizers import BinaryConfig
from tercet.recipe import Calibrate, Recipe

Array = NDArray[np.float64]


def case(rows: int, cols: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(cols, cols, generator=generator) * torch.logspace(-1, 0.5, cols)
    x = torch.randn(4 * cols, cols, generator=generator) @ mixing
    weight = torch.randn(rows, cols, generator=generator)
    weight[:, [3, 30]] *= 6
    return weight, damped(x.T @ x, 0.01)


class Stored:
    """Counts bits as they are stored."""

    def __init__(self) -> None:
        self.bits = 0

    def half(self, value: float) -> float:
        self.bits += 16
        return float(np.float16(value))

    def bit(self, value: bool) -> bool:
        self.bits += 1
        return bool(value)


def once(x: list[float]) -> tuple[float, float]:
    """Mean, and mean distance from it."""
    mean = sum(x) / len(x) if x else 0.0
    return mean, sum(abs(v - mean) for v in x) / len(x) if x else 0.0


def loss_of_twice(matrix: Array) -> float:
    total = 0.0
    for row in matrix:
        if not len(row):
            continue
        mean, scale = once(list(row))
        left = [v - mean - (scale if v >= mean else -scale) for v in row]
        again, finer = once(left)
        total += sum((v - again - (finer if v >= again else -finer)) ** 2 for v in left)
    return total


def loss_of_groups(matrix: Array, p: float) -> float:
    total = 0.0
    for row in matrix:
        for group in ([v for v in row if abs(v) >= p], [v for v in row if abs(v) < p]):
            mean, scale = once(group)
            total += sum((v - mean - (scale if v >= mean else -scale)) ** 2 for v in group)
    return total


def stored_salient(row: Array, stored: Stored) -> list[float]:
    mean, scale = once(list(row))
    left = [v - mean - (scale if v >= mean else -scale) for v in row]
    again, finer = once(left)
    middle, scale, finer = stored.half(mean + again), stored.half(scale), stored.half(finer)
    values = []
    for v, rest in zip(row, left, strict=True):
        coarse = scale if stored.bit(v >= mean) else -scale
        values.append(middle + coarse + (finer if stored.bit(rest >= again) else -finer))
    return values


def stored_groups(row: Array, p: float, stored: Stored) -> list[float]:
    levels = {}
    for name in (True, False):
        group = [v for v in row if (abs(v) >= p) == name]
        mean = float(np.float16(once(group)[0]))
        scale = sum(abs(v - mean) for v in group) / len(group) if group else 0.0
        levels[name] = stored.half(mean), stored.half(scale)
    values = []
    for v in row:
        mean, scale = levels[stored.bit(abs(v) >= p)]
        values.append(mean + (scale if stored.bit(v >= mean) else -scale))
    return values


def naive(weight: Array, hessian: Array) -> tuple[Array, int, list[int]]:
    left, stored, counts = weight.copy(), Stored(), []
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    for begin in range(0, left.shape[1], 128):
        columns = list(range(begin, min(begin + 128, left.shape[1])))
        saliency = np.array([[left[i, j] ** 2 / upper[j, j] ** 2 for j in columns] for i in range(len(left))])
        order = sorted(range(len(columns)), key=lambda j: -saliency[:, j].sum())
        sizes = range(1, min(49, len(columns)) + 1)
        losses = [loss_of_twice(saliency[:, order[:n]]) + loss_of_twice(saliency[:, order[n:]]) for n in sizes]
        counts.append(sizes[int(np.argmin(losses))])
        salient = [columns[j] for j in order[: counts[-1]]]
        others = [columns[j] for j in order[counts[-1] :]]
        for j in columns:
            stored.bit(j in salient)
        candidates = np.quantile(np.abs(left[:, others]), np.linspace(0.1, 0.9, 81))
        p = candidates[int(np.argmin([loss_of_groups(left[:, others], p) for p in candidates]))]
        before = left.copy()
        for i in range(len(left)):
            left[i, salient] = stored_salient(before[i, salient], stored)
            left[i, others] = stored_groups(before[i, others], p, stored)
        for j in columns:
            error = (before[:, j] - left[:, j]) / upper[j, j]
            for after in range(columns[-1] + 1, left.shape[1]):
                left[:, after] -= error * upper[j, after]
    return left, stored.bits, counts


@pytest.mark.parametrize(("rows", "cols", "seed"), [(3, 160, 0), (5, 128, 1), (2, 288, 2), (4, 40, 3)])
def test_it_is_the_naive_reference(rows: int, cols: int, seed: int) -> None:
    weight, hessian = case(rows, cols, seed)
    values, bits = binarize(weight, hessian)
    expected, expected_bits, counts = naive(weight.double().numpy(), hessian.double().numpy())
    np.testing.assert_allclose(values.numpy(), expected, rtol=2e-3, atol=2e-3)  # a float16 level may round otherwise
    assert bits == expected_bits
    assert 1 <= min(counts) <= max(counts) < 49
    assert not torch.equal(values, binarize(weight, torch.eye(cols))[0])


def test_zeros_stay_zeros() -> None:
    values, _ = binarize(torch.zeros(3, 64), torch.eye(64))
    assert torch.equal(values, torch.zeros(3, 64))


def test_a_whole_model() -> None:
    _, config, tensors = tiny.model("llama")
    model = families.model(config)
    program = model.text
    windows = np.stack([tiny.ids(64, seed=seed) for seed in range(32)])
    plan = Recipe.load("w1.58").model_copy(update={"rotate": False}).plan(model)
    seen: list[tuple[int, int]] = []
    settings = Calibrate(tokens=2048, context=64, correction=0, residual=0)
    dense = billm_dense(program, tensors, plan, windows, settings, progress=lambda *done: seen.append(done))
    assert set(dense.weights) == set(plan)
    assert set(dense.bits) == set(program.linears)
    assert seen == [(1, 2), (2, 2)]
    assert 2.5 < dense.bits_per_weight < 4  # groups of 64: many levels
    for name in program.linears:
        exact = tensors[name]
        plain = dequantized(BinaryConfig(group_size="row").build().freeze(torch.from_numpy(exact)))
        error, simple = (float(np.square(values - exact).mean()) for values in (dense.weights[name], plain))
        assert 0 < error < simple
    embedding = "model.embed_tokens.weight"
    assert np.abs(dense.weights[embedding] - tensors[embedding]).max() < 0.02  # int8, as planned
