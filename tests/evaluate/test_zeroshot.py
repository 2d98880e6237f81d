"""Classification, probe and bootstrap, each against what it is by definition."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fake_clip
from tercet.errors import EngineError, TercetError
from tercet.evaluate.bootstrap import Queries, paired
from tercet.evaluate.probe import probe
from tercet.evaluate.zeroshot import average_precision, class_vectors, rank_of_label
from tercet.runtime.pictures.embedder import normalized


def test_a_class_is_the_mean_of_its_normalised_prompts() -> None:
    clip = fake_clip.clip()
    templates = ["a photo of a {c}.", "{} thing, {}"]
    made = class_vectors(clip, ["red", "blue"], templates)
    for row, name in zip(made, ["red", "blue"], strict=True):
        prompts = [f"a photo of a {name}.", f"{name} thing, {name}"]
        vectors = [vector / np.linalg.norm(vector) for vector in clip.texts(prompts)]
        mean = np.mean(vectors, axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 30), classes=st.integers(1, 8), coarse=st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_rank_is_the_place_in_a_sorted_list(seed: int, n: int, classes: int, coarse: bool) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.standard_normal((n, 4)).astype(np.float32)
    names = rng.standard_normal((classes, 4)).astype(np.float32)
    if coarse:
        pictures, names = np.sign(pictures), np.sign(names)
    labels = rng.integers(0, classes, n)
    made = rank_of_label(pictures, names, labels)
    for row, label, rank in zip(pictures, labels, made, strict=True):
        scores = names @ row
        assert sorted(range(classes), key=lambda c: (-float(scores[c]), c)).index(label) == rank


def test_the_mean_per_class_weighs_classes_alike() -> None:
    assert Queries(np.array([True, True, True, False]), classes=np.array([0, 0, 0, 4])).mean() == 0.5


def test_average_precision_by_hand() -> None:
    truth = np.array([True, False, True, False])
    assert average_precision(np.float32([4, 3, 2, 1]), truth) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.float32([1, 3, 2, 4]), truth) == pytest.approx((1 / 3 + 2 / 4) / 2)


@pytest.mark.parametrize("value", [0, np.nan, np.inf])
def test_a_vector_without_direction_is_an_error(value: float) -> None:
    with pytest.raises(EngineError, match="not finite"):
        normalized(np.full((2, 3), value, np.float32))


def test_the_probe_learns_what_is_linear_and_not_what_is_noise() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((5, 16)).astype(np.float32) * 3
    labels, tests = rng.integers(0, 5, 400), rng.integers(0, 5, 200)
    noisy = [
        normalized(centres[who] + rng.standard_normal((len(who), 16)).astype(np.float32)) for who in (labels, tests)
    ]
    right = probe(noisy[0], labels, noisy[1], 5).argmax(axis=1) == tests
    assert right.mean() > 0.97
    shuffled = probe(noisy[0], rng.permutation(labels), noisy[1], 5).argmax(axis=1) == tests
    assert shuffled.mean() < 0.4
    with pytest.raises(TercetError, match="too few"):
        probe(noisy[0][:3], labels[:3], noisy[1], 5)


def test_the_probe_is_ridge_regression() -> None:
    """As the normal equations with an intercept give it, at the strength it chose."""
    rng = np.random.default_rng(1)
    x, labels = normalized(rng.standard_normal((60, 4)).astype(np.float32)), rng.integers(0, 3, 60)
    made = probe(x, labels, x[:7], 3)
    centred = x - x.mean(axis=0)
    unit = np.linalg.eigvalsh(centred.T.astype(np.float64) @ centred).mean()
    y = np.eye(3)[labels]
    fits = []
    for strength in (10.0**power for power in range(-6, 3)):
        gram = centred.T @ centred + strength * unit * np.eye(4)
        weights = np.linalg.solve(gram, centred.T @ (y - y.mean(axis=0)))
        fits.append(x[:7] @ weights + y.mean(axis=0) - x.mean(axis=0) @ weights)
    assert min(np.abs(fit - made).max() for fit in fits) < 1e-5


def test_the_bootstrap_s_interval_has_the_normal_one_s_width() -> None:
    rng = np.random.default_rng(2)
    one, other = rng.random(5000) < 0.7, rng.random(5000) < 0.68
    made = paired(Queries(one), Queries(other))
    difference = one.astype(float) - other
    error = 1.96 * difference.std() / np.sqrt(5000)
    assert made.value == pytest.approx(difference.mean())
    assert made.high - made.low == pytest.approx(2 * error, rel=0.05)
    assert made.low < made.value < made.high


def test_queries_of_a_group_are_drawn_together() -> None:
    rng = np.random.default_rng(3)
    one, other = np.repeat(rng.random(300) < 0.6, 10), np.repeat(rng.random(300) < 0.6, 10)
    apart, together = (paired(Queries(one, groups), Queries(other)) for groups in (None, np.repeat(np.arange(300), 10)))
    assert together.high - together.low == pytest.approx(np.sqrt(10) * (apart.high - apart.low), rel=0.1)
    ungrouped = paired(Queries(one[::10]), Queries(other[::10]))
    assert together.high - together.low == pytest.approx(ungrouped.high - ungrouped.low, rel=0.05)


def test_a_model_does_not_differ_from_itself() -> None:
    hits = np.random.default_rng(4).random(50) < 0.5
    assert paired(Queries(hits), Queries(hits)).as_dict() == {"value": 0, "low": 0, "high": 0}


def test_results_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(TercetError, match="paired"):
        paired(Queries(np.array([1, 0])), Queries(np.array([1])))
    with pytest.raises(TercetError, match="paired"):
        paired(Queries(np.array([])), Queries(np.array([])))


def test_of_a_mean_over_classes_pictures_are_drawn_within_their_class() -> None:
    """Against the same by hand: a class of 10 weighs as much as one of 1000, and its chance too."""
    rng = np.random.default_rng(5)
    labels = np.repeat([0, 3, 7], [1000, 10, 100])
    one, other = rng.random(1110) < 0.7, rng.random(1110) < 0.5
    made = paired(Queries(one, classes=labels), Queries(other))
    difference = one.astype(float) - other
    assert made.value == pytest.approx(Queries(one, classes=labels).mean() - Queries(other, classes=labels).mean())
    parts = [difference[labels == label] for label in (0, 3, 7)]
    draws = sum(part[rng.integers(0, len(part), (4000, len(part)))].mean(axis=1) for part in parts) / 3
    low, high = np.quantile(draws, [0.025, 0.975])
    assert made.low == pytest.approx(low, abs=0.02)
    assert made.high == pytest.approx(high, abs=0.02)
    alike = paired(Queries(np.ones(4), classes=np.arange(4)), Queries(np.array([1, 0, 0, 0])))
    assert alike.as_dict() == {"value": 0.75, "low": 0.75, "high": 0.75}  # nothing else can be drawn


def test_both_ways_of_retrieval_are_drawn_by_pictures() -> None:
    rng = np.random.default_rng(6)
    counts = rng.integers(1, 5, 200)
    owners = np.repeat(np.arange(200), counts)
    easy = rng.random(200) < 0.6  # a picture that is found is found by all its captions, and finds them
    hits = np.concatenate([easy[owners], easy])
    halves = np.arange(len(hits)) < len(owners)
    made = paired(Queries(hits, np.concatenate([owners, np.arange(200)]), halves=halves), Queries(np.zeros(len(hits))))
    assert made.value == pytest.approx((easy[owners].mean() + easy.mean()) / 2)
    drawn = rng.integers(0, 200, (4000, 200))
    draws = ((easy * counts)[drawn].sum(axis=1) / counts[drawn].sum(axis=1) + easy[drawn].mean(axis=1)) / 2
    low, high = np.quantile(draws, [0.025, 0.975])
    assert made.low == pytest.approx(low, abs=0.015)
    assert made.high == pytest.approx(high, abs=0.015)


def test_the_probe_makes_nothing_of_pictures_times_classes() -> None:
    rng = np.random.default_rng(7)
    vectors = normalized(rng.standard_normal((30_000, 4)).astype(np.float32))
    labels = rng.integers(0, 1000, 30_000)
    tracemalloc.start()
    probe(vectors, labels, vectors[:10], 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30_000 * 1000 * 8 / 2  # a matrix of that shape would be twice as much
