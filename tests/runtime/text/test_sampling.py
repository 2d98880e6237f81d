"""Sampling against a plain numpy reference in float64, random numbers included, on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tercet import _native, kernels
from tercet.errors import EngineError
from tercet.runtime import Sampling

VOCAB = 500


def _uniform(seed: int, draw: int) -> float:
    """The draw-th number of splitmix64."""
    mask = 2**64 - 1
    z = (seed + (draw + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return float((z ^ (z >> 31)) >> 11) * 2.0**-53


def _reference(logits: NDArray[np.float32], s: Sampling, seen: set[int], draw: int) -> tuple[int, float]:
    """The token, and how far the weights and the random number were from choosing another (in probability)."""
    scores = logits.copy()
    penalty = np.float32(s.repetition_penalty)
    for i in seen:
        scores[i] = scores[i] / penalty if scores[i] > 0 else scores[i] * penalty
    if s.temperature == 0:
        return int(scores.argmax()), 1.0
    vocab = len(logits)
    order = np.lexsort((np.arange(vocab), -scores))
    if s.top_k:
        order = order[: s.top_k]
    margin = 1.0
    weights = np.exp((scores.astype(np.float64) - scores.max()) / np.float32(s.temperature))
    shares = weights[order] / weights[order].sum()
    if s.top_p < 1:
        before = np.cumsum(shares) - shares
        margin = np.abs(before[1:] - np.float32(s.top_p)).min(initial=1.0)
        order = order[before < np.float32(s.top_p)]
    margin = min(margin, np.abs(weights[order] - np.float32(s.min_p))[1:].min(initial=1.0)) if s.min_p < 1 else margin
    order = order[weights[order] >= np.float32(s.min_p)]
    if not 0 < s.top_k < vocab and s.top_p == 1:  # nothing asked for an order
        order = np.sort(order)
    edges = np.cumsum(weights[order]) / weights[order].sum()
    u = _uniform(s.seed, draw)
    return int(order[np.searchsorted(edges, u, side="right")]), min(margin, float(np.abs(edges - u).min()))


SETTINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 5, 100, 10_000]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.3, 1e-6]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    seed=st.integers(0, 2**64 - 1),
)


@given(SETTINGS, st.integers(0, 1000), st.sampled_from([1, 15, 500, 1024, 3000]))
@settings(max_examples=200, deadline=None)
def test_same_tokens_as_the_reference(sampling: Sampling, case: int, vocab: int) -> None:
    rng = np.random.default_rng(case)
    seen = set(rng.integers(0, vocab, 20).tolist())
    samplers = [sampling.sampler(vocab, isa=isa) for isa in kernels.backends()]
    for sampler in samplers:
        sampler.accept(np.array(sorted(seen), np.int32))
    for draw in range(4):
        logits = rng.standard_normal(vocab).astype(np.float32) * np.float32(rng.choice([0.5, 3, 20]))
        logits[rng.integers(0, vocab, 50)] = logits.max()  # ties at the top
        expected, margin = _reference(logits, sampling, seen, draw)
        token, *others = (sampler.sample(logits) for sampler in samplers)
        assert all(other == token for other in others)
        assert token == expected or margin < 1e-5
        seen.add(token)
        for sampler in samplers:
            sampler.accept(np.array([token], np.int32))


def test_a_flat_distribution_is_sorted_as_far_as_top_p_needs() -> None:
    logits = np.random.default_rng(3).standard_normal(40_000).astype(np.float32) * np.float32(0.01)
    sampling = Sampling(temperature=1, top_p=0.9, seed=5)
    sampler = sampling.sampler(40_000)
    for draw in range(5):
        expected, margin = _reference(logits, sampling, set(), draw)
        assert sampler.sample(logits) == expected or margin < 1e-7


def test_ties_go_to_the_lower_id() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[[40, 7, 300]] = 1
    assert Sampling().sampler(VOCAB).sample(logits) == 7
    assert Sampling(temperature=1, top_k=1).sampler(VOCAB).sample(logits) == 7


def test_frequencies_are_the_softmax() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampling(temperature=1, seed=1).sampler(4)
    counts = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=4) / 20_000
    assert np.abs(counts - [0.5, 0.3, 0.15, 0.05]).max() < 0.015


def test_extreme_logits_stay_in_range() -> None:
    logits = np.full(VOCAB, -3e38, np.float32)
    logits[3] = 3e38
    assert Sampling(temperature=1e-6).sampler(VOCAB).sample(logits) == 3
    assert Sampling(temperature=1e6, top_p=0.5).sampler(VOCAB).sample(logits) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"seed": 2**64},
        {"max_tokens": -1},
    ],
)
def test_settings_out_of_range(bad: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=f"sampling: {next(iter(bad))}"):
        Sampling(**bad)


def test_the_native_sampler_checks_sizes() -> None:
    sampler = Sampling().sampler(10)
    with pytest.raises(EngineError, match="fit"):
        sampler.sample(np.zeros(9, np.float32))
    with pytest.raises(EngineError, match="outside"):
        sampler.accept(np.array([10], np.int32))
    with pytest.raises(EngineError, match="vocabulary"):
        _native.Sampler(0, 1, 0, 1, 0, 1, 0)
