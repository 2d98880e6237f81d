"""Law 1 where levels are trained: at the start, from calibration, and after steps that moved everything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tercet.quantizers import Learned, Levels, Quantizer
from tercet.tensor import TernaryTensor

Make = Callable[[int | str], Quantizer]
METHODS: dict[str, Make] = {
    "learned": Learned,
    "learned_shift": lambda group: Learned(group, with_shift=True),
    "learned_binary": lambda group: Learned(group, binary=True),
}
GROUPS = (32, 64, "row", "tensor")


def draw(seed: int, kind: str) -> Tensor:
    w = torch.randn(6, 128, generator=torch.Generator().manual_seed(seed))
    if kind == "sparse":
        w[:, 32:] = 0
    elif kind == "outlier":
        w[0, 0] = 1000
    elif kind == "grid":
        w = (w * 2).round() / 4
    return w


def calibrated(w: Tensor, group: int | str, binary: bool, seed: int) -> Levels:
    """Levels as error feedback leaves them: codes that are not the nearest ones."""
    generator = torch.Generator().manual_seed(seed)
    groups = w.shape[1] // group if isinstance(group, int) else 1
    codes = torch.randint(-1, 2, w.shape, generator=generator)
    if binary:
        codes = codes * 2 + 1
        codes = codes.clamp(-1, 1)
    scale = torch.rand(1 if group == "tensor" else len(w), groups, generator=generator) + 0.1
    return Levels.of(codes, scale.expand(len(w), -1), binary=binary)


def assert_law(quantizer: Quantizer, latent: Tensor) -> TernaryTensor:
    tensor = quantizer.freeze(latent)
    ships = torch.from_numpy(tensor.dequantize())
    for dtype in (latent.dtype, torch.bfloat16):
        sees = quantizer(latent.to(dtype)) if dtype == latent.dtype else quantizer(latent).to(dtype)
        assert torch.equal(sees.detach(), ships.to(dtype))
    assert not torch.signbit(ships[ships == 0]).any()
    return tensor


def move(quantizer: Quantizer, latent: Tensor, steps: int, seed: int) -> Tensor:
    """Some optimizer steps on the latent weight and all of the quantizer's parameters."""
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(latent.clone())
    optimizer = torch.optim.SGD([weight, *quantizer.parameters()], lr=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        quantizer(weight).backward(torch.randn(weight.shape, generator=generator) / weight.shape[1])
        optimizer.step()
        with torch.no_grad():
            quantizer.after_step(weight)
    return weight.detach()


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 1 << 16),
    kind=st.sampled_from(["normal", "sparse", "outlier", "grid"]),
    steps=st.integers(0, 12),
    from_levels=st.booleans(),
)
def test_what_training_saw_is_what_ships(
    method: str, group: int | str, seed: int, kind: str, steps: int, from_levels: bool
) -> None:
    w, quantizer = draw(seed, kind), METHODS[method](group)
    levels = calibrated(w, group, quantizer.binary, seed) if from_levels else None
    latent = quantizer.start(w, levels)
    quantizer.schedule(1.0)
    assert_law(quantizer, latent)
    assert_law(quantizer, move(quantizer, latent, steps, seed))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("method", ["learned", "learned_shift", "learned_binary"])
def test_calibrated_codes_and_scales_are_the_start(method: str, group: int | str) -> None:
    w, quantizer = draw(3, "normal"), METHODS[method](group)
    levels = calibrated(w, group, quantizer.binary, 3)
    frozen = assert_law(quantizer, quantizer.start(w, levels))
    expected = levels.to_tensor()
    assert (frozen.codes == expected.codes).all()
    assert (frozen.scale == expected.scale).all()


def test_a_negative_scale_flips_nothing_that_training_saw() -> None:
    quantizer = Learned(32)
    latent = quantizer.start(draw(0, "normal"))
    with torch.no_grad():
        quantizer.scale[1] *= -1
    tensor = assert_law(quantizer, latent)
    assert (tensor.scale >= 0).all()


def test_gradients_are_the_formulas() -> None:
    """The module's docstring, in float64 and by autograd of the plain expression."""
    quantizer = Learned(32, with_shift=True)
    latent = quantizer.start(draw(1, "normal").double())
    upstream = torch.randn(latent.shape, dtype=torch.float64)
    weight = nn.Parameter(latent)
    quantizer(weight).backward(upstream)
    codes = quantizer.solve(latent).codes.double().reshape(6, 4, 32)
    scale, shift = (p.detach().clone().requires_grad_() for p in (quantizer.scale, quantizer.shift))
    (codes * scale[..., None] + shift[..., None]).reshape(6, 128).backward(upstream)
    assert torch.equal(weight.grad, upstream)
    torch.testing.assert_close(quantizer.scale.grad, scale.grad)
    torch.testing.assert_close(quantizer.shift.grad, shift.grad)
