"""The rotation: the transform of its definition, its own inverse, the same bits in numpy and torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet import kernels
from tercet.errors import QuantizeError
from tercet.program.hadamard import largest_block, order, paley, rotated, widest_block


def definition(block: int) -> np.ndarray:
    """Paley's matrix times Sylvester's."""
    matrix = np.ones((1, 1))
    while len(matrix) * order(block) < block:
        matrix = np.kron([[1, 1], [1, -1]], matrix)
    return np.kron(paley(order(block)), matrix) / np.sqrt(block)


@settings(deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 256, 12, 24, 96, 20, 40, 28, 56, 36, 144, 60, 76]),
    st.integers(1, 5),
    st.sampled_from([(), (3,), (2, 3), (0,)]),
    st.integers(0, 99),
)
def test_it_is_the_matrix_blockwise_and_undoes_itself(
    block: int, blocks: int, shape: tuple[int, ...], seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(*shape, blocks * block)).astype(np.float32)
    expected = x.astype(np.float64) @ np.kron(np.eye(blocks), definition(block))
    found = rotated(x, block)
    assert found.dtype == np.float32
    assert found.shape == x.shape
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.sqrt(block))
    np.testing.assert_allclose(rotated(found, block), x, atol=4e-6)
    assert np.array_equal(rotated(torch.from_numpy(x), block).numpy(), found)
    for isa in kernels.backends():
        assert np.array_equal(kernels.rotate(x.reshape(-1, x.shape[-1]), block, isa=isa).reshape(x.shape), found)


@pytest.mark.parametrize("m", [order(block) for block in range(4, 513, 4) if order(block) == block])
def test_paley_s_matrices_are_symmetric_and_orthogonal(m: int) -> None:
    matrix = paley(m).astype(int)
    assert set(np.unique(matrix)) == {-1, 1}
    assert np.array_equal(matrix, matrix.T)
    assert np.array_equal(matrix @ matrix, m * np.eye(m, dtype=int))


def test_the_widest_blocks_of_models_people_use() -> None:
    for width in (576, 640, 768, 896, 960, 1152, 1536, 2304, 2560, 3584, 4864, 5120, 8960, 14336, 18944):
        assert widest_block(width) == width
    assert widest_block(11008) == 256  # 43 * 256: no matrix of order 172 or 344 by these constructions
    assert widest_block(6) == 2


def test_a_rotated_weight_times_a_rotated_input_is_the_product() -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(5, 96)), rng.normal(size=(3, 96))
    assert largest_block(96) == 32
    np.testing.assert_allclose(rotated(x, 32) @ rotated(weight, 32).T, x @ weight.T, atol=1e-12)


def test_gradients_flow_through() -> None:
    x = torch.randn(4, 48, dtype=torch.float64, requires_grad=True)
    for block in (16, 24):
        assert torch.autograd.gradcheck(lambda y, block=block: rotated(y, block), (x,))


@pytest.mark.parametrize("block", [0, -4, 3, 6, 20, 64])
def test_blocks_that_cannot_be(block: int) -> None:
    with pytest.raises(QuantizeError, match="48 columns cannot be rotated in blocks of"):
        rotated(np.zeros((2, 48), np.float32), block)
