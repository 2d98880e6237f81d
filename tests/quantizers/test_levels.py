"""Where float meets float16: rounding to levels, flips, zeros, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import QuantizeError
from tercet.quantizers import L2, AbsMean, AbsMean2, Binary, Itf, Levels, round_to_levels

TINY = 2.0**-24  # the smallest float16 above 0


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float32)


@given(st.floats(-3, 3, width=32), st.floats(0, 2, width=16), st.floats(-2, 2, width=16))
def test_rounding_takes_the_nearest_level(w: float, scale: float, shift: float) -> None:
    code = int(round_to_levels(torch.tensor(w), torch.tensor(scale), torch.tensor(shift)))
    distance = abs(w - (shift + code * scale))
    assert distance <= min(abs(w - (shift + t * scale)) for t in (-1, 0, 1)) + 1e-6
    binary = int(round_to_levels(torch.tensor(w), torch.tensor(scale), torch.tensor(shift), binary=True))
    assert abs(w - (shift + binary * scale)) <= abs(w - (shift - binary * scale)) + 1e-6
    assert binary in (-1, 1)


def test_half_way_goes_to_zero_and_a_zero_scale_clears() -> None:
    w = row(0.5, -0.5, 0.500001, -0.500001, 0.0, -7.0)
    assert round_to_levels(w, torch.tensor(1.0)).tolist() == [[0, 0, 1, -1, 0, -1]]
    assert round_to_levels(w, torch.tensor(0.0)).tolist() == [[0] * 6]
    assert round_to_levels(w, torch.tensor(1.0), binary=True).tolist() == [[1, -1, 1, -1, 1, -1]]


def test_rounding_broadcasts_one_scale_a_row() -> None:
    w = torch.tensor([[1.0, 0.4], [1.0, 0.4]])
    assert round_to_levels(w, torch.tensor([[1.0], [0.5]])).tolist() == [[1, 0], [1, 1]]


def test_a_negative_scale_flips_its_codes() -> None:
    codes = torch.tensor([[1, 0, -1, 1], [1, 0, -1, 1]])
    levels = Levels.of(codes, torch.tensor([[2.0, -3.0], [-1.0, 1.0]]), torch.tensor([[0.5, 0.0], [0.0, -0.0]]))
    assert levels.codes.tolist() == [[1, 0, 1, -1], [-1, 0, -1, 1]]
    assert levels.scale.tolist() == [[2.0, 3.0], [1.0, 1.0]]
    assert levels.dequantize().tolist() == [[2.5, 0.5, 3.0, -3.0], [-1.0, 0.0, -1.0, 1.0]]
    assert levels.shift is not None
    assert not levels.shift.signbit().any()


def test_a_scale_that_rounds_to_zero_clears_its_codes() -> None:
    codes = torch.tensor([[1, -1, 1, -1]])
    levels = Levels.of(codes, row(TINY / 4, TINY))
    assert levels.codes.tolist() == [[0, 0, 1, -1]]
    assert levels.scale.tolist() == [[0.0, TINY]]
    binary = Levels.of(codes, row(TINY / 4, -TINY / 4), binary=True)
    assert binary.codes.tolist() == [[1, -1, -1, 1]]
    assert not binary.dequantize().any()
    assert not binary.dequantize().signbit().any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 65520.0, -1e30])
@pytest.mark.parametrize("quantizer", [AbsMean(32), L2("tensor"), Itf("row"), Binary("row")])
def test_weights_beyond_float16_are_refused(quantizer: AbsMean, bad: float) -> None:
    w = torch.randn(3, 64)
    w[1, 40] = bad
    for act in (quantizer, quantizer.freeze, quantizer.solve):
        with pytest.raises(QuantizeError, match="65504"):
            act(w)


def test_levels_beyond_float16_are_refused() -> None:
    with pytest.raises(QuantizeError, match="65504"):  # twice the mean magnitude
        AbsMean2("row").freeze(torch.full((1, 32), 40000.0))
    for scale, shift in ((65505.0, 0.0), (40000.0, 40000.0), (math.nan, 0.0), (1.0, math.nan)):
        with pytest.raises(QuantizeError, match="65504"):
            Levels.of(torch.ones(1, 2), row(scale), row(shift))


def test_the_largest_float16_is_not_refused() -> None:
    tensor = L2("row").freeze(torch.full((1, 32), 65504.0))
    np.testing.assert_array_equal(tensor.dequantize(), np.full((1, 32), 65504, np.float32))


@pytest.mark.parametrize(
    ("width", "group", "better"), [(96, 64, "use 32 or row"), (576, 128, "use 64, 32 or row"), (100, 32, "use row")]
)
def test_a_group_that_does_not_divide_the_width_is_refused(width: int, group: int, better: str) -> None:
    with pytest.raises(QuantizeError, match=f"width {width} is not a multiple of the group size {group}; {better}$"):
        L2(group).freeze(torch.zeros(2, width))


@pytest.mark.parametrize("w", [torch.zeros(32), torch.zeros(2, 2, 32), torch.zeros(0, 32), torch.ones(2, 32).long()])
def test_only_float_matrices_are_quantized(w: torch.Tensor) -> None:
    with pytest.raises(QuantizeError, match="only float matrices"):
        L2().freeze(w)
