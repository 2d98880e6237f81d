"""The straight-through estimator: quantized values forward, the identity backward, in every dtype."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tercet.quantizers import L2, Binary, Itf, L2Config, Quantizer, Twn, quantize_


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantizer", [L2(32), Twn("tensor"), Itf("row"), Binary(64)])
def test_gradient_passes_unchanged(quantizer: Quantizer, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(4, 64, generator=generator).to(dtype).requires_grad_()
    upstream = torch.randn(4, 64, generator=generator).to(dtype)
    values = quantizer(w)
    values.backward(upstream)
    assert values.dtype == dtype
    assert not torch.equal(values, w)
    assert w.grad is not None
    assert torch.equal(w.grad, upstream)


def test_values_are_not_w_plus_a_difference() -> None:
    """`w + (q - w)` rounds twice, and differs from q in some bits: law 1 needs q itself."""
    w = torch.randn(64, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    q = Itf(32).solve(w).dequantize()
    assert not torch.equal(w + (q - w), q)
    assert torch.equal(Itf(32)(w), q)


def test_training_moves_the_latents_of_a_model() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
    quantize_(model, {"0.weight": L2Config(group_size=32)})
    latent = model[0].parametrizations.weight.original
    assert any(latent is each for each in model.parameters())
    before, codes = latent.detach().clone(), L2(32).solve(latent).codes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(16, 32), torch.randn(16, 1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert not torch.equal(latent, before)
    assert not torch.equal(L2(32).solve(latent).codes, codes)
    assert model[0].weight.unique().numel() <= 3 * 32


def test_weights_that_need_no_gradient_get_none() -> None:
    assert not L2(32)(torch.randn(2, 32)).requires_grad
