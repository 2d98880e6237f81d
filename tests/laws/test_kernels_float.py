"""Law 3 for the float operations: the same bits on every instruction set, and close to float64 mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kernel_cases import GROUPS, PACKED, same_bits, weight
from tercet import _native, kernels
from tercet.packing import pack, reference
from tercet.program.hadamard import rotated

F32 = NDArray[np.float32]
SIZES = (1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 576)
KV = {"float16": 0, "float32": 1, "int8": 2}
FUNCTIONS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "quick_gelu": 3}


def everywhere(run: Callable[[str], F32]) -> F32:
    """The result, after checking that every instruction set gives its bits."""
    results = {isa: run(isa) for isa in kernels.backends()}
    for isa, result in results.items():
        assert same_bits(result, results["scalar"]), isa
    return results["scalar"]


def random(*shape: int, seed: int = 0, spread: float = 1.0) -> F32:
    return (np.random.default_rng(seed).normal(size=shape) * spread).astype(np.float32)


@pytest.mark.parametrize("dim", SIZES)
def test_norms(dim: int) -> None:
    x, w, b = random(5, dim, seed=dim, spread=3), random(dim, seed=1), random(dim, seed=2)
    exact = x.astype(np.float64)
    expected = exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + 1e-5) * w
    np.testing.assert_allclose(everywhere(lambda isa: _native.rmsnorm(isa, x, w, 1e-5)), expected, rtol=1e-5)
    centred = exact - exact.mean(axis=1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * w
    for bias in (None, b):
        got = everywhere(lambda isa, bias=bias: _native.layernorm(isa, x, w, bias, 1e-5))
        np.testing.assert_allclose(got, expected + (0 if bias is None else b), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("head_dim", "rotary"), [(64, 64), (80, 32), (6, 6), (128, 128), (34, 34)])
def test_rope_rotates_halves_and_leaves_the_rest(head_dim: int, rotary: int) -> None:
    x, angle = random(3, head_dim), random(rotary // 2, seed=1, spread=9)
    cos, sin = np.cos(angle), np.sin(angle)
    got = everywhere(lambda isa: _native.rope(isa, x, cos, sin))
    first, second = x[:, : rotary // 2], x[:, rotary // 2 : rotary]
    expected = np.concatenate([first * cos - second * sin, second * cos + first * sin, x[:, rotary:]], axis=1)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0, 40.0])
def test_activations(name: str, spread: float) -> None:
    x, up = random(5003, seed=3, spread=spread), random(5003, seed=4)
    x[:8] = (0, -0.0, 1e-30, -1e-30, 80, -80, 1000, -1000)
    v = x.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = {
            "silu": v / (1 + np.exp(-v)),
            "gelu": 0.5 * v * (1 + np.vectorize(math.erf)(v / math.sqrt(2))),
            "gelu_tanh": 0.5 * v * (1 + np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))),
            "quick_gelu": v / (1 + np.exp(-1.702 * v)),
        }[name]
    got = everywhere(lambda isa: _native.activate(isa, FUNCTIONS[name], x))
    # A few units in the last place; GELU's own 1 + erf cancels below -1, so its error is relative to x there.
    size = np.abs(expected) + (name in ("gelu", "gelu_tanh")) * np.abs(v)
    if name == "quick_gelu":  # the exponent 1.702 x is rounded, which e^ turns into an error that grows with x
        size *= 1 + np.abs(v)
    np.testing.assert_array_less(np.abs(got - expected), 5e-7 * size + 1e-36)
    both = everywhere(lambda isa: _native.gated(isa, FUNCTIONS[name], x, up))
    assert same_bits(both, got * up)


@pytest.mark.parametrize("n", SIZES)
def test_add(n: int) -> None:
    a, b = random(n, seed=n), random(n, seed=n + 1)
    assert same_bits(everywhere(lambda isa: _native.add(isa, a, b)), a + b)


@pytest.mark.parametrize("dim", [1, 2, 4, 8, 16, 32, 64, 512, 4096, 12, 20, 24, 36, 40, 192, 576, 1536, 104])
@pytest.mark.parametrize("blocks", [1, 3, 7])
def test_rotations_are_numpys_bits(dim: int, blocks: int) -> None:
    x = random(3, dim * blocks, seed=dim, spread=100)
    assert same_bits(everywhere(lambda isa: kernels.rotate(x, dim, isa=isa)), rotated(x, dim))


@pytest.mark.parametrize("n", SIZES)
def test_clips_are_numpys_bits_and_a_nan_stays(n: int) -> None:
    x = random(2, n, seed=n, spread=3)
    x[0, 0], x[1, 0], x[1, -1] = np.inf, -0.0, np.nan
    got = everywhere(lambda isa: kernels.clip(x, 1.3, isa=isa))
    assert same_bits(got[:, :-1], np.clip(x, np.float32(-1.3), np.float32(1.3))[:, :-1])
    assert np.isnan(got[1, -1])


def in_int8(x: F32) -> F32:
    codes, scale, _ = reference.quantize_activations(x.reshape(-1, x.shape[-1]), x.shape[-1])
    return (codes * scale).reshape(x.shape)


STORED: dict[str, Callable[[F32], F32]] = {
    "float16": lambda x: x.astype(np.float16).astype(np.float32),
    "float32": lambda x: x,
    "int8": in_int8,
}


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.integers(1, 140),
    dim=st.sampled_from([8, 16, 20, 64, 80, 128]),
    shape=st.sampled_from([(1, 1), (4, 2), (6, 2), (3, 3), (7, 1), (50, 1)]),
    window=st.sampled_from([0, 1, 5, 64, 100]),
    kv=st.sampled_from(["float16", "float32", "int8"]),
    at_once=st.sampled_from([2, 3, 17, 64, 200]),
    split=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_attention(
    tokens: int, dim: int, shape: tuple[int, int], window: int, kv: str, at_once: int, split: int, seed: int
) -> None:
    heads, kv_heads = shape
    q, k, v = (random(tokens, h, dim, seed=seed + i) for i, h in enumerate((heads, kv_heads, kv_heads)))
    scale = 0.7
    got = everywhere(lambda isa: _native.attention(isa, q, k, v, window, scale, KV[kv], 1, 1))
    for isa in kernels.backends():  # nor does it matter which queries are computed together
        assert same_bits(_native.attention(isa, q, k, v, window, scale, KV[kv], at_once, split), got)
    stored = STORED[kv]
    everything = (k, v)
    k, v = stored(k), stored(v)
    k, v = (np.repeat(a, heads // kv_heads, axis=1).astype(np.float64) for a in (k, v))
    scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), k) * scale
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    scores[:, (distance < 0) | (distance >= (window or tokens))] = -np.inf
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    expected = np.einsum("hqk,khd->qhd", p / p.sum(axis=2, keepdims=True), v)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=2e-5)
    seen = int(np.random.default_rng(seed).integers(1, tokens + 1))  # later keys in the cache change nothing
    for isa in kernels.backends():
        first = [np.ascontiguousarray(a[:seen]) for a in everything]
        alone = _native.attention(isa, q[:seen], *first, window, scale, KV[kv], seen, 0)
        assert same_bits(alone, got[:seen])


def test_every_half_is_read_exactly_and_floats_round_to_even() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    packed = pack(halves[None], "f16")
    assert np.array_equal(everywhere(lambda isa: kernels.row(packed, 0, isa=isa)), halves.astype(np.float32))
    rng = np.random.default_rng(5)
    exact = halves.astype(np.float32)
    between = (exact[1:] + exact[:-1]) / 2  # ties, where neighbours have one sign
    scattered = (rng.normal(size=20000) * 10.0 ** rng.uniform(-9, 4.8, 20000)).astype(np.float32)
    values = np.concatenate([exact, between, scattered, [65519.9, 65520, 1e9, -1e9, 2.9e-8, 3e-8]]).astype(np.float32)
    values = np.resize(values, (-(-len(values) // 64), 1, 64))
    one = np.ones((1, 1, 64), np.float32)
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16).astype(np.float32)
    for isa in kernels.backends():  # a sequence of one token returns its value, stored as a half
        got = np.stack([_native.attention(isa, one, one, value[None], 0, 1.0, 0, 1, 1)[0] for value in values])
        assert np.array_equal(got, expected), isa


@settings(max_examples=60, deadline=None)
@given(
    fmt=st.sampled_from(PACKED), rows=st.integers(1, 40), groups=st.integers(1, 6), n=st.integers(1, 20),
    shift=st.booleans(), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_float_activations_and_rows(fmt: str, rows: int, groups: int, n: int, shift: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cols = groups * (64 if 64 in GROUPS[fmt] else 128)
    tensor = weight(fmt, rows, cols, groups, rng, shift)
    packed, dense = pack(tensor, fmt), tensor.dequantize()
    x, bias = random(n, cols, seed=seed), random(rows, seed=seed + 1)
    run = lambda isa: kernels.matmul(packed, x, bias=bias, isa=isa, activations="float32")  # noqa: E731
    got = everywhere(run)
    magnitude = np.abs(x).astype(np.float64) @ np.abs(dense).T.astype(np.float64) + 1
    assert (np.abs(got - (x.astype(np.float64) @ dense.T + bias)) <= 1e-6 * magnitude).all()
    assert same_bits(got, kernels.matmul(pack(dense, "f32"), x, bias=bias, activations="float32"))
    index = int(rng.integers(rows))
    assert np.array_equal(everywhere(lambda isa: kernels.row(packed, index, isa=isa)), dense[index])
    scaled = everywhere(lambda isa: kernels.row(packed, index, factor=3.3, isa=isa))
    assert np.array_equal(scaled, dense[index] * np.float32(3.3))


@pytest.mark.parametrize("fmt", ["f16", "f32"])
@pytest.mark.parametrize("cols", [1, 15, 16, 100, 257, 600])
def test_kept_layers(fmt: str, cols: int) -> None:
    dense = random(21, cols, seed=cols).astype(np.float16).astype(np.float32)
    x = random(11, cols, seed=cols + 1)
    packed = pack(dense, fmt)
    got = everywhere(lambda isa: kernels.matmul(packed, x, isa=isa, activations="float32"))
    np.testing.assert_allclose(got, x.astype(np.float64) @ dense.T, rtol=1e-4, atol=1e-4)
    one = kernels.matmul(packed, x[3:4], activations="float32")
    assert same_bits(one, got[3:4])
    assert same_bits(kernels.matmul(packed, x, activations="float32", threads=2), got)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 6), cols=st.integers(1, 200), group=st.sampled_from([32, 64, 1000]), seed=st.integers(0, 2**32))
def test_quantize_equals_the_reference(n: int, cols: int, group: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, cols)) * 10.0 ** rng.uniform(-44, 38, (n, 1))).clip(-3e38, 3e38).astype(np.float32)
    x[0, : cols // 2] = rng.choice([0.5, 1.5, 2.5, -0.5, 127.0], cols // 2)  # ties
    codes, scale, total = reference.quantize_activations(x, group)
    for isa in kernels.backends():
        got = kernels.quantize(x, group, isa=isa)
        assert np.array_equal(got.codes[:, :cols], codes)
        assert not got.codes[:, cols:].any()
        assert same_bits(got.scale, scale)
        assert np.array_equal(got.sum, total)
