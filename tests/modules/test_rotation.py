"""The differentiable rotation: the bits of the reference, and the right gradient."""

from __future__ import annotations

import pytest
import torch

from tercet.modules.rotation import rotate
from tercet.program.hadamard import rotated


@pytest.mark.parametrize("shape", [(2, 5, 96), (96,), (0, 96)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_it_is_the_rotation(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    for given in (x, x.flip(0), x.mT.contiguous().mT if x.dim() > 1 else x):  # any strides
        for block in (32, 96):
            found = rotate(given, block)
            assert found.dtype == dtype
            assert torch.equal(found, rotated(given, block))


def test_gradients() -> None:
    x = torch.randn(3, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: rotate(y, 16), (x,))
    assert torch.autograd.gradgradcheck(lambda y: rotate(y, 16) ** 2, (x,))
    single = torch.randn(3, 48, requires_grad=True)
    weight = torch.randn(3, 48)
    (rotate(single, 16) * weight).sum().backward()
    assert single.grad is not None
    assert torch.equal(single.grad, rotated(weight, 16))
