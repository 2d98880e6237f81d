"""Law 1: `freeze(w).dequantize() == quantizer(w)`, bit for bit. What training saw is what ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tercet.quantizers import (
    L2,
    AbsMean,
    AbsMean2,
    Binary,
    Itf,
    KMeans,
    KMeansConfig,
    L2Config,
    Quantizer,
    Twn,
    freeze,
    quantize_,
    round_to_levels,
)
from tercet.quantizers.base import total
from tercet.tensor import TernaryTensor

METHODS = {
    "absmean": AbsMean,
    "absmean2": AbsMean2,
    "twn": Twn,
    "kmeans": KMeans,
    "l2": L2,
    "itf": Itf,
    "binary": Binary,
    "zero_one": lambda group: Binary(group, zero_one=True),
}
GROUPS = (32, 64, 128, "row", "tensor")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Matrices 128 or 256 wide, ordinary and not: few values, zero groups, tiny, huge, one-sided, an outlier."""
    rows, cols = draw(st.integers(1, 6)), draw(st.sampled_from([128, 256]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 32)))
    kind = draw(st.sampled_from(["normal", "grid", "constant", "one-sided", "outlier", "sparse"]))
    w = torch.randn(rows, cols, generator=generator)
    if kind == "grid":
        w = (w * 2).round() / 4  # ties, also with thresholds
    elif kind == "constant":
        w = torch.full_like(w, draw(st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.3])))
    elif kind == "one-sided":
        w = w.abs() + draw(st.sampled_from([0.0, 5.0]))
    elif kind == "outlier":
        w[0, 0] = 1000
    elif kind == "sparse":
        w = w * (torch.rand(w.shape, generator=generator) < 0.02)
    w = w * draw(st.sampled_from([1e-42, 1e-8, 6e-8, 1e-5, 0.02, 1.0, 15.0]))
    if draw(st.booleans()):
        w[:, :64] = draw(st.sampled_from([0.0, -0.0]))
    return w.to(draw(st.sampled_from(DTYPES)))


def bits(values: Tensor) -> Tensor:
    return values.detach().contiguous().view(torch.int32 if values.dtype == torch.float32 else torch.int16)


def assert_law(quantizer: Quantizer, w: Tensor) -> TernaryTensor:
    ships = torch.from_numpy(quantizer.freeze(w).dequantize())
    sees = quantizer(w)
    assert sees.dtype == w.dtype
    assert torch.equal(bits(sees), bits(ships.to(w.dtype)))
    assert torch.equal(bits(quantizer(w.float())), bits(ships))
    assert not torch.signbit(ships[ships == 0]).any()
    return quantizer.freeze(w)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(w=weights())
def test_what_training_saw_is_what_ships(method: str, group: int | str, w: Tensor) -> None:
    tensor = assert_law(METHODS[method](group), w)
    assert tensor.scale.shape == (len(w), w.shape[1] // group if isinstance(group, int) else 1)
    cleared = np.repeat(tensor.scale == 0, tensor.group_size, axis=1)
    if method in ("binary", "zero_one"):
        assert set(np.unique(tensor.codes)) <= {-1, 1}
    else:
        assert not tensor.codes[cleared].any()
    if method != "twn":  # its threshold is not half its scale
        scale, shift = (
            None if v is None else torch.from_numpy(v).float().repeat_interleave(tensor.group_size, 1)
            for v in (tensor.scale, tensor.shift)
        )
        nearest = round_to_levels(w.float(), scale, shift, binary=METHODS[method](group).binary)
        assert torch.equal(torch.from_numpy(tensor.dequantize()), nearest * scale + (0.0 if shift is None else shift))
    assert not np.signbit(tensor.scale).any()
    assert tensor.shift is None or not np.signbit(tensor.shift[tensor.shift == 0]).any()
    if group == "tensor":
        assert len(np.unique(tensor.scale)) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("amp", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_bit(method: str, amp: torch.dtype) -> None:
    w = torch.randn(48, 128, generator=torch.Generator().manual_seed(1))
    quantizer = METHODS[method](64)
    outside = quantizer(w)
    with torch.autocast("cpu", dtype=amp):
        inside, frozen = quantizer(w), quantizer.freeze(w)
    assert inside.dtype == torch.float32
    assert torch.equal(bits(inside), bits(outside))
    assert torch.equal(bits(inside), bits(torch.from_numpy(frozen.dequantize())))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(1, 1, 1 << 17), (1, 1 << 17, 4), (3, 1, 1 << 16), (1, 1 << 9, 1 << 9)])
def test_number_of_threads_changes_no_bit_of_a_sum(shape: tuple[int, int, int], seed: int) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) ** 4
    threads = torch.get_num_threads()
    try:
        sums = []
        for count in (1, 3, 4):
            torch.set_num_threads(count)
            sums.append(total(x))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(each, sums[0]) for each in sums)
    torch.testing.assert_close(sums[0], x.double().sum((1, 2), keepdim=True).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("group", ["row", "tensor"])
def test_number_of_threads_changes_no_bit(method: str, group: str) -> None:
    """Long enough that torch would split a sum of the whole tensor, or of one long row, among threads."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn((1, 1 << 17) if group == "row" else (1 << 7, 1 << 10), generator=generator)
    quantizer = METHODS[method](group)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = quantizer.freeze(w)
        torch.set_num_threads(4)
        assert quantizer.freeze(w).equals(alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("method", METHODS)
def test_layout_in_memory_changes_no_bit(method: str) -> None:
    w = torch.randn(128, 64, generator=torch.Generator().manual_seed(3))
    quantizer = METHODS[method](64)
    assert quantizer.freeze(w.T.contiguous().T).equals(quantizer.freeze(w))


def test_a_model_computes_with_what_ships() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 8))
    x = torch.randn(5, 64)
    quantize_(model, {"0.weight": L2Config(group_size=32), "2.weight": KMeansConfig(group_size="row")})
    quantized, frozen = model(x), freeze(model)
    assert list(frozen) == ["0.weight", "2.weight"]
    plain = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, 8))
    for index in (0, 2):
        plain[index].weight.data = torch.from_numpy(frozen[f"{index}.weight"].dequantize())
        plain[index].bias.data = model[index].bias.data
    assert torch.equal(quantized, plain(x))
