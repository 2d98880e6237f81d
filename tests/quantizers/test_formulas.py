"""Each rule against its formula, written out slowly in float64, and `l2` against every possible choice of codes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tercet.quantizers import L2, AbsMean, AbsMean2, Binary, Levels, Quantizer, Twn

GROUP = 32


def matrix(seed: int, rows: int = 4, cols: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) * torch.rand(rows, 1, generator=generator)


def by_group(quantizer: Quantizer, w: Tensor) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """(weights, codes, scale, shift) of every group."""
    levels = quantizer.solve(w)
    size = w.shape[1] // levels.scale.shape[1]
    shift = levels.scale * 0 if levels.shift is None else levels.shift
    return [
        (x, t, float(a), float(g))
        for x, t, a, g in zip(
            w.double().reshape(-1, size).numpy(),
            levels.codes.reshape(-1, size).numpy(),
            levels.scale.flatten(),
            shift.flatten(),
            strict=True,
        )
    ]


def half(value: float) -> float:
    return float(np.float16(value))


@pytest.mark.parametrize(("quantizer", "factor"), [(AbsMean(GROUP), 1), (AbsMean2(GROUP), 2)])
def test_absmean_rounds_to_the_nearest_multiple_of_the_mean(quantizer: Quantizer, factor: int) -> None:
    for x, codes, scale, _ in by_group(quantizer, matrix(0)):
        assert scale == half(factor * np.abs(x).mean())
        np.testing.assert_array_equal(codes, np.clip(np.rint(x / scale), -1, 1))


def test_absmean2_zeroes_58_percent_of_normal_weights() -> None:
    w = torch.randn(64, 512, generator=torch.Generator().manual_seed(5))
    assert float((AbsMean2("row").solve(w).codes == 0).float().mean()) == pytest.approx(0.575, abs=0.01)


@pytest.mark.parametrize("group", [GROUP, "row", "tensor"])
def test_absmean2_begins_with_calibrated_codes_and_scales(group: Any) -> None:
    w = matrix(6)
    w[1, 5] = 0
    calibrated = L2(group).solve(w + 0.3 * w.std() * torch.randn(w.shape, generator=torch.Generator().manual_seed(7)))
    codes = calibrated.codes.clone()
    if group == GROUP:
        codes[2, :GROUP] = 0
    levels = Levels(codes, calibrated.scale)
    latent = AbsMean2(group).start(w, levels)
    found = AbsMean2(group).solve(latent)
    assert torch.equal(found.codes, levels.codes)
    assert torch.equal(found.scale, levels.scale)
    assert not torch.equal(L2(group).solve(w).codes, levels.codes)
    kept = (latent.sign() == w.sign()) | (w == 0)
    assert kept[(codes == 0) | (codes == w.sign())].all()


def test_absmean2_begins_with_something_where_a_group_has_no_zero() -> None:
    w = matrix(8, rows=1, cols=GROUP)
    levels = Levels(w.sign().to(torch.int8), torch.full((1, 1), 0.5, dtype=torch.float16))
    latent = AbsMean2(GROUP).start(w, levels)
    assert torch.equal(latent.sign(), w.sign())
    assert (latent.abs() >= 0.25).all()


@pytest.mark.parametrize("threshold", [0.7, 0.75])
def test_twn_averages_what_passes_its_threshold(threshold: float) -> None:
    for x, codes, scale, _ in by_group(Twn(GROUP, threshold), matrix(1)):
        past = np.abs(x) > threshold * np.abs(x).mean()
        np.testing.assert_array_equal(codes, np.sign(x) * past)
        assert scale == pytest.approx(np.abs(x)[past].mean(), rel=2**-11)


def test_twn_takes_07_when_not_told() -> None:
    w = matrix(2)
    assert Twn(GROUP).freeze(w).equals(Twn(GROUP, 0.7).freeze(w))


def test_binary_takes_the_sign_and_the_mean_magnitude() -> None:
    w = matrix(3)
    w[0, :3] = torch.tensor([0.0, -0.0, -1e-30])
    for x, codes, scale, _ in by_group(Binary(GROUP), w):
        np.testing.assert_array_equal(codes, np.where(x >= 0, 1, -1))
        assert scale == half(np.abs(x).mean())


def test_zero_one_has_the_levels_0_and_a() -> None:
    w = matrix(4)
    values = Binary(GROUP, zero_one=True).solve(w).dequantize()
    for x, v in zip(w.reshape(-1, GROUP), values.reshape(-1, GROUP), strict=True):
        zero, a = v.unique().tolist()
        assert zero == 0
        assert a == pytest.approx(float(x[x > a / 2].mean()), rel=0.02)
        assert torch.equal(v > 0, x > a / 2)


def best_loss(x: np.ndarray) -> float:
    """The least sum (x - alpha*T)^2 over all 3^n codes, each with its best alpha."""
    codes = np.array(list(itertools.product((-1, 0, 1), repeat=len(x))))
    gains = (codes @ x) ** 2 / np.maximum((codes**2).sum(1), 1)
    return float(x @ x - gains.max())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1000, 1000).map(lambda v: v / 256), min_size=1, max_size=6))
def test_l2_is_the_best_of_all_codes(values: list[float]) -> None:
    w = torch.tensor([values])
    alpha, _ = L2().fit(w[None])
    x = np.array(values)
    codes = np.sign(x) * (np.abs(x) > float(alpha) / 2)
    loss = float(((x - float(alpha) * codes) ** 2).sum())
    assert loss == pytest.approx(best_loss(x), rel=1e-5, abs=1e-9)
    rounded = float((L2().solve(w).dequantize() - w).double().square().sum())
    assert rounded <= best_loss(x) + (2**-11 * float(alpha)) ** 2 * len(x) + 1e-9  # all float16 can add


@pytest.mark.parametrize("group", [GROUP, "row", "tensor"])
def test_groups_are_solved_apart(group: int | str) -> None:
    """Each group's levels are those of a matrix that is this group alone."""
    w = matrix(6)
    levels = L2(group).solve(w)
    parts = {GROUP: w.reshape(-1, 1, GROUP), "row": w[:, None], "tensor": w.reshape(1, 1, -1)}[group]
    alone = torch.cat([L2().solve(part).dequantize().flatten() for part in parts])
    assert torch.equal(levels.dequantize().flatten(), alone)


def test_more_weights_than_are_solved_at_a_time() -> None:
    w = torch.randn(40, 1 << 14, generator=torch.Generator().manual_seed(7))
    whole = L2(64).freeze(w)
    np.testing.assert_array_equal(whole.codes[-3:], L2(64).freeze(w[-3:]).codes)
    np.testing.assert_array_equal(whole.scale[-3:], L2(64).freeze(w[-3:]).scale)
