"""Gradients: the straight-through estimator in every dtype, and those of each trained quantizer by its formula.

The formulas are written as plain torch expressions in float64, with `detach` where a paper takes a rounding for the
identity, and differentiated by autograd.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import tiny
from tercet import families
from tercet.modules.ops import run
from tercet.program import Op
from tercet.quantizers import (
    L2,
    Binary,
    CatQ,
    Crulis,
    CrulisConfig,
    Dlt,
    Itf,
    L2Config,
    Learned,
    LrQat,
    LrQatConfig,
    Quantizer,
    Seq,
    Twn,
    quantize_,
    recomputed,
)
from tercet.quantizers.dlt import Gradient


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


ROWS, WIDTH, GROUP = 6, 128, 32
SHAPE = (ROWS, WIDTH // GROUP, GROUP)


def started(quantizer: Quantizer, seed: int = 0) -> tuple[nn.Parameter, Tensor]:
    """A float64 latent weight whose quantizer's parameters were moved a little, and a gradient of its values."""
    generator = torch.Generator().manual_seed(seed)
    latent = quantizer.start(torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    weight = nn.Parameter(latent, requires_grad=quantizer.trains_latent)
    return weight, torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)


def halved(scale: Tensor) -> Tensor:
    """The float16 value; its gradient passes."""
    return scale + (scale.detach().half().double() - scale.detach())


def straight(value: Tensor, x: Tensor) -> Tensor:
    """`value`, with x's gradient."""
    return value.detach() + (x - x.detach())


def copies(*tensors: Tensor | None) -> list[Tensor]:
    return [tensor.detach().clone().requires_grad_() for tensor in tensors if tensor is not None]


@pytest.mark.parametrize("gradient", ["identity", "masked", "scaled"])
def test_dlt(gradient: Gradient) -> None:
    quantizer = Dlt(GROUP, gradient)
    weight, upstream = started(quantizer)
    quantizer(weight).backward(upstream)
    w, alpha, gamma = copies(weight, quantizer.scale, quantizer.shift)
    x = w.detach().reshape(SHAPE)
    delta = 0.7 * x.abs().mean(-1, keepdim=True)
    codes = (x > delta).double() - (x < -delta).double()
    values = halved(alpha)[..., None] * codes + halved(gamma)[..., None]
    values.reshape(ROWS, WIDTH).backward(upstream)
    factor = {
        "identity": torch.ones_like(x),
        "masked": ((x - gamma.detach()[..., None]).abs() <= alpha.detach()[..., None]).double(),
        "scaled": torch.where(codes == 0, 1, alpha.detach()[..., None]),
    }[gradient]
    torch.testing.assert_close(weight.grad, upstream * factor.reshape(ROWS, WIDTH))
    torch.testing.assert_close(quantizer.scale.grad, alpha.grad)
    torch.testing.assert_close(quantizer.shift.grad, gamma.grad)


@pytest.mark.parametrize("binary", [False, True])
def test_seq(binary: bool) -> None:
    """Against the formula in a of the paper's code: scale = 2a/3, or a where binary."""
    quantizer = Seq(GROUP, binary)
    weight, upstream = started(quantizer)
    quantizer(weight).backward(upstream)
    w, scale = copies(weight, quantizer.scale)
    a = halved(scale)[..., None] * (1 if binary else 1.5)
    x = w.reshape(SHAPE)
    v = (x / a).detach()
    if binary:
        values, inside, edge = v.sign(), v.abs() <= 1, v.sign()
        by_a = v.sign()
    else:
        values, inside, edge = (v.clamp(-0.99, 0.99) * 1.5).round() / 1.5, v.abs() < 0.99, v.sign()
        by_a = torch.where(inside, values - v, edge)
    assert torch.equal(quantizer(weight).detach(), (values * a.detach()).reshape(ROWS, WIDTH).float().double())
    # dL/da is scaled, dL/dW masked: a linear expression with these gradients
    (by_a * a * (ROWS * WIDTH) ** -0.5 + inside * x).reshape(ROWS, WIDTH).backward(upstream)
    torch.testing.assert_close(weight.grad, w.grad)
    torch.testing.assert_close(quantizer.scale.grad, scale.grad)
    assert 0 < inside.double().mean() < 1


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.79, 0.8, 1.0])
@pytest.mark.parametrize("group", [GROUP, "row", "tensor"])
def test_catq(group: int | str, progress: float) -> None:
    quantizer = CatQ(group)
    quantizer.schedule(progress)
    weight, upstream = started(quantizer)
    values = quantizer(weight)
    values.backward(upstream)
    w, factors = copies(weight, quantizer.factors)
    x = w.reshape(*factors.shape[1:], -1)
    d_mu, d_alpha, d_delta = (2 * factors.sigmoid())[..., None]
    mean = x.mean(-1, keepdim=True)
    a0 = (x - mean).abs().mean(-1, keepdim=True) + 1e-6
    alpha, delta = d_alpha * a0, 0.5 * d_delta
    v = (x - (mean + (d_mu - 1) * a0)) / alpha
    if progress < 0.8:
        s = torch.tensor(0.01 + 29.99 * (progress / 0.8) ** 3, dtype=torch.float64)
        codes = (torch.tanh(s * (v - delta)) + torch.tanh(s * (v + delta))) / (2 * torch.tanh(s))
    else:
        u = v / (2 * delta)
        codes = straight(u.round(), u).clamp(-1, 1)
    expected = (halved(alpha) * codes).reshape(ROWS, WIDTH)
    expected.backward(upstream)
    torch.testing.assert_close(values, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, w.grad, rtol=1e-4, atol=1e-5)  # means are float32 sums
    torch.testing.assert_close(quantizer.factors.grad, factors.grad, rtol=1e-4, atol=1e-5)


def test_crulis() -> None:
    quantizer = Crulis(GROUP)
    weight, upstream = started(quantizer)
    assert weight.abs().max() == 1
    quantizer(weight).backward(upstream)
    v, s = copies(weight, quantizer.scale)
    x = v.reshape(SHAPE)
    codes = straight((x >= 0.5).double() - (x <= -0.5).double(), x)
    (s[..., None] * codes).reshape(ROWS, WIDTH).backward(upstream)
    torch.testing.assert_close(weight.grad, v.grad)
    torch.testing.assert_close(quantizer.scale.grad, s.grad)
    with torch.no_grad():
        weight += torch.randn(weight.shape)
        quantizer.after_step(weight)
    assert weight.abs().max() == 1


def test_crulis_includes_its_thresholds() -> None:
    quantizer = Crulis("row")
    latent = quantizer.start(torch.randn(1, 4, generator=torch.Generator().manual_seed(0)))
    latent[:] = torch.tensor([0.5, -0.5, 0.4999, -0.4999])
    assert quantizer.solve(latent).codes.tolist() == [[1, -1, 0, 0]]


def clipped(linear: nn.Linear, x: Tensor, config: CrulisConfig) -> Tensor:
    """As in a program that does what the config asks for."""
    buffers = {"y": linear(x)}
    if config.output_clip is not None:
        clip = Op("clip", ("y",), "y", limit=config.output_clip)
        run(families.model(tiny.config("llama")).text, clip, buffers, {})
    return buffers["y"]


def test_crulis_clips_outputs() -> None:
    model = nn.Linear(32, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[1.0], [-1.0]])
        model.bias[:] = torch.tensor([200.0, -64.5])
    x = torch.ones(1, 32, requires_grad=True)
    plain = nn.Linear(32, 2)
    plain.load_state_dict(model.state_dict())
    config, without = CrulisConfig(), CrulisConfig(clip=None)
    quantize_(model, {"weight": config})
    quantize_(plain, {"weight": without})
    assert clipped(model, x, config).tolist() == [[100, -96.5]]
    assert clipped(plain, x, without).tolist() == [[232, -96.5]]
    clipped(model, x, config).sum().backward()
    assert torch.equal(x.grad, -torch.ones(1, 32))  # none where it clips


@pytest.mark.parametrize("base", ["fp32", "bf16", "int8"])
def test_lrqat(base: str) -> None:
    quantizer = LrQat(GROUP, rank=8, alpha=16, base=base)
    weight, upstream = started(quantizer)
    quantizer(weight).backward(upstream)
    assert weight.grad is None
    assert weight.dtype == {"fp32": torch.float64, "bf16": torch.bfloat16, "int8": torch.int8}[base]
    a, b, s = copies(quantizer.a, quantizer.b, quantizer.scale)
    phi = weight.double() / (64 if base == "int8" else 1)
    z = phi + 2 * a @ b
    codes = straight(z.round(), z).clamp(-1, 1).reshape(SHAPE)
    (s[..., None] * codes).reshape(ROWS, WIDTH).backward(upstream)
    assert torch.equal(quantizer.solve(weight).codes.reshape(SHAPE).double(), codes.detach())
    for name, expected in {"a": a, "b": b, "scale": s}.items():
        torch.testing.assert_close(getattr(quantizer, name).grad, expected.grad)
    assert not torch.equal(codes.detach(), phi.round().clamp(-1, 1).reshape(SHAPE))  # A B counts


def test_lrqat_trains_in_a_model_and_keeps_its_base() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
    quantize_(model, {"0.weight": LrQatConfig(group_size=32, rank=4, alpha=4, base="int8")})
    base = model[0].parametrizations.weight.original
    before, values = base.clone(), model[0].weight.detach()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert not any(parameter is base for parameter in trained)
    optimizer = torch.optim.Adam(trained, lr=0.03)
    x, y = torch.randn(16, 64), torch.randn(16, 1)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert torch.equal(base, before)
    assert not torch.equal(model[0].weight, values)


def kept_bytes(model: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """Bytes that a forward pass leaves allocated, by the allocator's account, and the output."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        y = model(x)
    return sum(event.self_cpu_memory_usage for event in profile.events()), y


@pytest.mark.parametrize("base", ["fp32", "int8"])
def test_lrqat_recomputes_the_weight_in_backward(base: str) -> None:
    torch.manual_seed(4)
    size = 256
    model = nn.Sequential(*(nn.Linear(size, size) for _ in range(3)))
    quantize_(model, {f"{i}.weight": LrQatConfig(group_size=32, rank=2, base=base) for i in range(3)})
    x = torch.randn(4, size, requires_grad=True)
    kept, y = kept_bytes(model, x)
    y.square().sum().backward()
    expected = [parameter.grad.clone() for parameter in (x, *model.parameters()) if parameter.grad is not None]
    model.zero_grad()
    x.grad = None
    with recomputed():
        kept_less, again = kept_bytes(model, x)
    assert torch.equal(again, y)
    again.square().sum().backward()
    found = [parameter.grad for parameter in (x, *model.parameters()) if parameter.grad is not None]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))
    weight = 4 * size * size
    assert kept > 3 * weight
    assert kept_less < weight / 4


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"with_shift": True}, {"binary": True}])
@pytest.mark.parametrize("group", [32, 96, "row"])
def test_the_fused_loops_give_the_bits_of_levels(
    group: int | str, options: dict[str, bool], amp: torch.dtype | None
) -> None:
    """Forward and latent gradient to the bit, the scales' sums to rounding; a float64 twin takes the other way."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(5, 96, generator=generator)
    w[1], w[2, :4] = 0, torch.tensor([0.5, -0.5, 0.0, -0.0])  # a group without a scale; ties
    quantizer, twin = Learned(group, **options), Learned(group, **options)
    latent = nn.Parameter(quantizer.start(w))
    other = nn.Parameter(twin.start(w).double())
    with torch.no_grad():
        quantizer.scale[3] *= -1
        for ours, its in zip(quantizer.parameters(), twin.parameters(), strict=True):
            its.copy_(ours)
    upstream = torch.randn(5, 96, generator=generator).to(amp or torch.float32)
    with torch.autocast("cpu", dtype=amp or torch.bfloat16, enabled=amp is not None):
        values = quantizer(latent)
    ships = torch.from_numpy(quantizer.freeze(latent).dequantize())
    assert torch.equal(
        values.view(torch.int16 if amp else torch.int32),
        ships.to(values.dtype).view_as(values).view(torch.int16 if amp else torch.int32),
    )
    values.backward(upstream)
    twin(other).backward(upstream.double())
    assert torch.equal(latent.grad, upstream.float())
    for ours, its in zip(quantizer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, its.grad.float(), rtol=1e-5, atol=1e-5)


def test_the_fused_loops_leave_storage_that_can_be_freed() -> None:
    """FSDP2 frees and gathers the parameters of a block again and again; torch forbids it of what numpy has seen."""
    quantizer = Learned(32)
    latent = nn.Parameter(quantizer.start(torch.randn(4, 64, generator=torch.Generator().manual_seed(5))))
    values = quantizer(latent)
    values.sum().backward()
    assert latent.grad is not None
    for tensor in (latent, quantizer.scale, values, latent.grad):
        assert tensor.untyped_storage().resizable()
