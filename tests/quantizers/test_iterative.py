"""The rules that iterate: `kmeans` (the error by iteration of Crulis et al.) and `itf`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tercet.quantizers import L2, Itf, KMeans, Twn, kmeans_history, round_to_levels

GROUPS = (32, "row", "tensor")


def loss(values: Tensor, w: Tensor) -> float:
    return float((values.double() - w.double()).square().sum())


def lloyd(x: np.ndarray, iterations: int) -> list[tuple[float, float]]:
    """(m, loss) after each iteration, in float64."""
    magnitude = np.abs(x)
    m = magnitude.mean()
    seen = []
    for _ in range(iterations + 1):
        mask = magnitude > m / 2
        seen.append((float(m), float(((magnitude - m * mask) ** 2).sum())))
        m = magnitude[mask].mean() if mask.any() else 0.0
    return seen


@pytest.fixture
def w() -> Tensor:
    return torch.randn(16, 192, generator=torch.Generator().manual_seed(0)) * 0.05


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
def test_kmeans_is_lloyd(w: Tensor, iterations: int) -> None:
    scales = KMeans("row", iterations).solve(w).scale.flatten()
    slow = [lloyd(row, iterations)[-1][0] for row in w.double().numpy()]
    np.testing.assert_allclose(scales.float(), slow, rtol=2**-10)


@pytest.mark.parametrize("group", GROUPS)
def test_history_is_the_loss_of_each_iteration(w: Tensor, group: int | str) -> None:
    units = w.double().reshape({32: (-1, 32), "row": (16, -1), "tensor": (1, -1)}[group]).numpy()
    slow = sum(np.array([each for _, each in lloyd(unit, 6)]) for unit in units)
    history = kmeans_history(w, group, 6)
    np.testing.assert_allclose([absolute for absolute, _ in history], slow, rtol=1e-4)
    np.testing.assert_allclose([relative for _, relative in history], slow / (units**2).sum(), rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from(GROUPS), st.sampled_from([1, 3, 5]))
def test_no_iteration_raises_the_loss(seed: int, group: int | str, power: int) -> None:
    w = torch.randn(4, 96, generator=torch.Generator().manual_seed(seed)) ** power
    losses = [absolute for absolute, _ in kmeans_history(w, group, 10)]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(losses))


def test_three_iterations_come_within_a_quarter_percent_of_the_optimum() -> None:
    """For normal weights in long rows; the optimum is `l2`'s. The start, m = mean |W|, is far from it."""
    w = torch.randn(8, 8192, generator=torch.Generator().manual_seed(1))
    best = loss(L2("row")(w), w)
    losses = [absolute for absolute, _ in kmeans_history(w, "row", 3)]
    assert best <= losses[3] <= best * 1.0025
    assert losses[0] > best * 1.3


def test_history_of_zeros() -> None:
    assert kmeans_history(torch.zeros(2, 32), 32, 2) == [(0.0, 0.0)] * 3


def test_itf_recovers_shifted_ternary_weights() -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(-1, 2, (8, 64), generator=generator)
    scale, shift = torch.rand(8, 1, generator=generator) + 0.5, torch.randn(8, 1, generator=generator)
    levels = Itf("row").solve(codes * scale + shift)
    assert torch.equal(levels.codes, codes.to(torch.int8))
    assert levels.shift is not None
    torch.testing.assert_close(levels.scale.float(), scale, rtol=1e-3, atol=0)
    torch.testing.assert_close(levels.shift.float(), shift, rtol=1e-3, atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.3, -4.0, 100.0]))
def test_itf_levels_are_least_squares_and_codes_nearest(seed: int, offset: float) -> None:
    """At the end no alpha and gamma are better for these T, and no T is better for these alpha and gamma."""
    w = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed)) + offset
    alpha, gamma = Itf(32, rounds=100).fit(w.reshape(-1, 1, 32))
    for x, a, g in zip(w.double().reshape(-1, 32).numpy(), alpha.flatten(), gamma.flatten(), strict=True):
        distance = (x - float(g)) / float(a)
        assume(np.abs(np.abs(distance) - 0.5).min() > 1e-4)  # nearer, float32 may choose either code
        codes = np.clip(np.rint(distance), -1, 1)
        design = np.stack([codes, np.ones(32)], 1)
        fitted, *_ = np.linalg.lstsq(design, x, rcond=None)
        np.testing.assert_allclose([float(a), float(g)], fitted, rtol=1e-4, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.sampled_from([0.0, 0.5, -2.0]))
def test_no_round_of_itf_raises_the_loss(seed: int, offset: float) -> None:
    w = torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)) + offset
    losses = []
    for rounds in (1, 2, 4, 10):
        alpha, gamma = (v.reshape(-1, 1) for v in Itf(32, rounds).fit(w.reshape(-1, 1, 32)))
        x = w.reshape(-1, 32)
        losses.append(loss(gamma + alpha * ((x - gamma) / alpha).round().clamp(-1, 1), x))
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(losses))
    around = torch.stack([row - row.mean() for row in w.reshape(-1, 32)])
    assert losses[-1] <= loss(Twn("row")(around), around) * (1 + 1e-3)  # where it starts, up to float16


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 65504.0])
def test_itf_of_equal_weights_is_their_mean(value: float) -> None:
    levels = Itf(32).solve(torch.full((2, 64), value))
    assert not levels.scale.any()
    assert not levels.codes.any()
    assert levels.shift is not None
    assert (levels.shift == value).all()


def test_itf_with_a_large_offset_does_not_cancel() -> None:
    """At 1000 the raw sums of the formula lose alpha in float32; float16 holds the shift to 0.5 only."""
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(3))
    alpha, gamma = Itf().fit((x + 1000)[:, None])
    plain, offset = Itf().fit(x[:, None])
    torch.testing.assert_close(alpha, plain, rtol=1e-3, atol=0)
    torch.testing.assert_close(gamma - 1000, offset, rtol=0, atol=1e-3)


def test_itf_codes_are_nearest_to_the_levels_that_are_stored() -> None:
    """Near 1000 float16 moves the shift by up to 0.25: codes chosen before that rounding would be others."""
    w = torch.randn(4, 64, generator=torch.Generator().manual_seed(4)) + 1000
    levels = Itf("row").solve(w)
    assert levels.shift is not None
    assert torch.equal(levels.codes, round_to_levels(w, levels.scale.float(), levels.shift.float()))
    alpha, gamma = (v[:, 0] for v in Itf().fit(w[:, None]))
    assert not torch.equal(levels.codes, round_to_levels(w, alpha, gamma))
