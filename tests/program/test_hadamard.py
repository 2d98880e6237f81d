"""The rotation: the transform of its definition, its own inverse, the same bits in numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import QuantizeError
from tercet.program.hadamard import largest_block, rotated


def definition(block: int) -> np.ndarray:
    """Sylvester's matrix."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return matrix / np.sqrt(block)


@settings(deadline=None)
@given(st.integers(0, 8), st.integers(1, 5), st.sampled_from([(), (3,), (2, 3), (0,)]), st.integers(0, 99))
def test_it_is_the_matrix_blockwise_and_undoes_itself(
    power: int, blocks: int, shape: tuple[int, ...], seed: int
) -> None:
    block = 1 << power
    x = np.random.default_rng(seed).normal(size=(*shape, blocks * block)).astype(np.float32)
    expected = x.astype(np.float64) @ np.kron(np.eye(blocks), definition(block))
    found = rotated(x, block)
    assert found.dtype == np.float32
    assert found.shape == x.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.sqrt(block))
    np.testing.assert_allclose(rotated(found, block), x, atol=4e-6)
    assert np.array_equal(rotated(torch.from_numpy(x), block).numpy(), found)


def test_a_rotated_weight_times_a_rotated_input_is_the_product() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(5, 96)), rng.normal(size=(3, 96))
    assert largest_block(96) == 32
    np.testing.assert_allclose(rotated(x, 32) @ rotated(weight, 32).T, x @ weight.T, atol=1e-12)


def test_gradients_flow_through() -> None:
    x = torch.randn(4, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: rotated(y, 16), (x,))


@pytest.mark.parametrize("block", [0, -4, 3, 12, 64])
def test_blocks_that_cannot_be(block: int) -> None:
    with pytest.raises(QuantizeError, match="48 columns cannot be rotated in blocks of"):
        rotated(np.zeros((2, 48), np.float32), block)
