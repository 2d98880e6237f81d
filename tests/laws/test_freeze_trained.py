"""Law 1 where levels are trained: at the start, from calibration, and after steps that moved everything.

And of every such method: what it refuses, and that calibrated codes and scales are its start where it can have them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tercet.errors import QuantizeError
from tercet.quantizers import CatQ, Crulis, Dlt, Learned, Levels, LrQat, Quantizer, Seq
from tercet.tensor import TernaryTensor

Make = Callable[[int | str], Quantizer]
METHODS: dict[str, Make] = {
    "learned": Learned,
    "learned_shift": lambda group: Learned(group, with_shift=True),
    "learned_binary": lambda group: Learned(group, binary=True),
    "dlt": Dlt,
    "dlt_masked": lambda group: Dlt(group, "masked"),
    "dlt_scaled": lambda group: Dlt(group, "scaled"),
    "seq": Seq,
    "seq_binary": lambda group: Seq(group, binary=True),
    "catq": CatQ,
    "crulis": Crulis,
    "lrqat": lambda group: LrQat(group, rank=4, alpha=4),
    "lrqat_bf16": lambda group: LrQat(group, rank=4, alpha=4, base="bf16"),
    "lrqat_int8": lambda group: LrQat(group, rank=4, alpha=4, base="int8"),
}
SHIFTED = ("learned_shift", "dlt", "dlt_masked", "dlt_scaled")
BINARY = ("learned_binary", "seq_binary")
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
    dtypes = (torch.float32, torch.bfloat16, torch.float16) if quantizer.trains_latent else (latent.dtype,)
    for dtype in dtypes:
        ships = torch.from_numpy(quantizer.freeze(latent.to(dtype)).dequantize())
        sees = quantizer(latent.to(dtype)).detach()
        assert sees.dtype == (dtype if quantizer.trains_latent else torch.float32)
        assert torch.equal(sees, ships.to(sees.dtype))
        assert not torch.signbit(ships[ships == 0]).any()
    tensor = quantizer.freeze(latent)
    assert (tensor.scale >= 0).all()
    if quantizer.binary:
        assert set(np.unique(tensor.codes)) <= {-1, 1}
    return tensor


def move(quantizer: Quantizer, latent: Tensor, steps: int, seed: int) -> Tensor:
    """Some optimizer steps on the latent weight and all of the quantizer's parameters."""
    generator = torch.Generator().manual_seed(seed)
    weight = nn.Parameter(latent.clone(), requires_grad=quantizer.trains_latent)
    optimizer = torch.optim.SGD([each for each in (weight, *quantizer.parameters()) if each.requires_grad], lr=0.3)
    for step in range(steps):
        quantizer.schedule(step / steps)
        optimizer.zero_grad()
        quantizer(weight).backward(torch.randn(weight.shape, generator=generator) / weight.shape[1])
        optimizer.step()
        with torch.no_grad():
            quantizer.after_step(weight)
    quantizer.schedule(1.0)
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
    assert_law(quantizer, latent)
    assert_law(quantizer, move(quantizer, latent, steps, seed))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["normal", "outlier", "grid"])
def test_calibrated_codes_and_scales_are_the_start(method: str, group: int | str, kind: str) -> None:
    w, quantizer = draw(3, kind), METHODS[method](group)
    levels = calibrated(w, group, quantizer.binary, 3)
    latent = quantizer.start(w, levels)
    frozen, expected = quantizer.freeze(latent), levels.to_tensor()
    assert (frozen.codes == expected.codes).all()
    if method == "catq":  # its scale is at most twice the mean |W|, and comes out of a sigmoid
        grouped = latent.reshape(*quantizer.factors.shape[1:], -1)
        a0 = (grouped - grouped.mean(2, keepdim=True)).abs().mean(2).numpy()
        wanted = np.minimum(expected.scale, 1.99 * a0)
        np.testing.assert_allclose(frozen.scale, wanted, rtol=2e-3)
        assert group == "tensor" or (wanted == expected.scale).any()
    else:
        assert (frozen.scale == expected.scale).all()
    if method in SHIFTED:
        assert not frozen.shift.any()


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"catq", *BINARY}))
def test_a_lone_code_of_a_group_is_the_start(method: str) -> None:
    """Calibration gives one small weight a huge scale and its whole group no other code, in SmolLM2's last blocks."""
    quantizer = METHODS[method](64)
    w = torch.randn(4, 128, generator=torch.Generator().manual_seed(5)) * 0.4
    codes = torch.zeros(4, 128, dtype=torch.int8)
    for row, sign in enumerate((1, -1, 1, -1)):
        codes[row, 7 + row], w[row, 7 + row] = sign, -0.02 * sign
    levels = Levels.of(codes, torch.tensor([[26.5, 0.3]]).expand(4, -1))
    frozen, expected = quantizer.freeze(quantizer.start(w, levels)), levels.to_tensor()
    assert (frozen.codes == expected.codes).all()
    assert (frozen.scale == expected.scale).all()


@pytest.mark.parametrize("method", SHIFTED)
def test_calibrated_shifts_are_the_start(method: str) -> None:
    w, quantizer = draw(4, "normal"), METHODS[method](32)
    levels = calibrated(w, 32, False, 4)
    levels = Levels.of(levels.codes, levels.scale, torch.rand(levels.scale.shape))
    assert quantizer.freeze(quantizer.start(w, levels)).equals(levels.to_tensor())


@pytest.mark.parametrize("method", METHODS)
def test_starts_that_do_not_fit_are_refused(method: str) -> None:
    w, binary = draw(5, "normal"), method in BINARY
    with pytest.raises(QuantizeError, match="4 groups a row, not 2"):
        METHODS[method](64).start(w, calibrated(w, 32, binary, 5))
    with pytest.raises(QuantizeError, match="not one for the tensor"):
        METHODS[method]("tensor").start(w, calibrated(w, "row", binary, 5))
    levels = calibrated(w, 32, binary, 5)
    if method not in SHIFTED:
        with pytest.raises(QuantizeError, match="shifts"):
            METHODS[method](32).start(w, Levels.of(levels.codes, levels.scale, levels.scale, binary=binary))
    if binary:
        with pytest.raises(QuantizeError, match="ternary"):
            METHODS[method](32).start(w, calibrated(w, 32, False, 5))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 7e4])
def test_weights_past_float16_are_refused(method: str, value: float) -> None:
    w, quantizer = draw(6, "normal"), METHODS[method](32)
    w[2, 3] = value
    with pytest.raises(QuantizeError):
        quantizer.freeze(quantizer.start(w))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "catq"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 7e4, -7e4])
def test_scales_past_float16_are_refused(method: str, value: float) -> None:
    quantizer = METHODS[method](32)
    latent = quantizer.start(draw(6, "normal"))
    with torch.no_grad():
        quantizer.scale[1, 1] = value
    for use in (quantizer, quantizer.freeze):
        with pytest.raises(QuantizeError):
            use(latent)


@pytest.mark.parametrize("method", METHODS)
def test_before_its_start_it_is_what_it_starts_as_or_refuses(method: str) -> None:
    w, quantizer = draw(9, "normal"), METHODS[method](32)
    if method == "catq" or method.startswith("lrqat"):
        with pytest.raises(QuantizeError, match="call `start`"):
            quantizer.solve(w)
    else:
        before = assert_law(quantizer, w)
        assert before.equals(quantizer.freeze(quantizer.start(w)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("from_levels", [False, True])
def test_groups_of_zeros_are_zeros_and_stay_finite(method: str, from_levels: bool) -> None:
    """A quarter of them from calibration too: no codes, no scale."""
    w, quantizer = draw(7, "sparse"), METHODS[method](32)
    levels = None
    if from_levels:
        given = calibrated(w, 32, quantizer.binary, 7)
        given.scale[:, 1:] = 0
        levels = Levels.of(given.codes, given.scale.float(), binary=quantizer.binary)
    latent = quantizer.start(w, levels)
    assert not quantizer.freeze(latent).dequantize()[:, 32:].any()
    latent = move(quantizer, latent, 3, 7)
    assert_law(quantizer, latent)
    assert all(parameter.grad.isfinite().all() for parameter in quantizer.parameters())
    assert latent.isfinite().all()


@pytest.mark.parametrize("method", [method for method in METHODS if method != "catq"])
def test_a_negative_scale_flips_nothing_that_training_saw(method: str) -> None:
    quantizer = METHODS[method](32)
    latent = quantizer.start(draw(0, "normal"))
    before = quantizer.freeze(latent)
    with torch.no_grad():
        quantizer.scale[1] *= -1
    assert assert_law(quantizer, latent).equals(before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_bit(method: str, amp: torch.dtype) -> None:
    quantizer = METHODS[method](64)
    latent = move(quantizer, quantizer.start(draw(8, "normal")), 2, 8)
    outside = quantizer(latent)
    with torch.autocast("cpu", dtype=amp):
        inside, frozen = quantizer(latent), quantizer.freeze(latent)
    assert torch.equal(inside, outside.to(inside.dtype))  # the fused loops round to autocast's dtype, last
    assert torch.equal(inside, torch.from_numpy(frozen.dequantize()).to(inside.dtype))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", ["row", "tensor"])
def test_number_of_threads_changes_no_bit(method: str, group: str) -> None:
    """Long enough that torch would split a sum of the whole tensor, or of one long row, among threads."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn((1, 1 << 17) if group == "row" else (1 << 7, 1 << 10), generator=generator)
    quantizer = METHODS[method](group)
    latent = move(quantizer, quantizer.start(w), 1, 2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = quantizer.freeze(latent)
        torch.set_num_threads(4)
        assert quantizer.freeze(latent).equals(alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("progress", [0.0, 0.4, 0.799])
def test_catq_is_not_frozen_while_soft(progress: float) -> None:
    quantizer = CatQ(32)
    latent = quantizer.start(draw(0, "normal"))
    hard = quantizer.freeze(latent)  # it was never told a progress
    quantizer.schedule(progress)
    assert not torch.equal(quantizer(latent), torch.from_numpy(hard.dequantize()))
    with pytest.raises(QuantizeError, match="soft until 80%"):
        quantizer.freeze(latent)
    assert torch.equal(quantizer.solve(latent).codes, torch.from_numpy(hard.codes))
    quantizer.schedule(0.8)
    assert assert_law(quantizer, latent).equals(hard)


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


@pytest.mark.parametrize("method", ["dlt", "lrqat", "lrqat_bf16", "lrqat_int8"])
def test_a_calibrated_start_is_well_inside_its_cells(method: str) -> None:
    """Small changes, such as of the first steps, flip no code."""
    w, quantizer = draw(10, "normal"), METHODS[method](32)
    levels = calibrated(w, 32, False, 10)
    latent = quantizer.start(w, levels)
    noise = torch.rand(w.shape, generator=torch.Generator().manual_seed(0)) * 0.2 - 0.1
    if method == "dlt":
        latent = latent + latent * noise
    else:
        with torch.no_grad():
            quantizer.b[:] = 0.1
            quantizer.a[:] = noise[:, :4]
    assert torch.equal(quantizer.solve(latent).codes, levels.codes)
