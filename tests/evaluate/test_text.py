"""Against torch's own cross entropy and KL divergence, over whole arrays."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tercet.errors import TercetError
from tercet.evaluate import compare, quality

VOCAB = 50


def model(seed: int, sharpness: float = 3.0):
    table = np.random.default_rng(seed).normal(0, sharpness, (VOCAB, VOCAB)).astype(np.float32)
    return lambda ids: table[ids]


def test_all_three_numbers_are_torchs() -> None:
    ids = np.random.default_rng(0).integers(0, VOCAB, (3, 75))  # more than one chunk of rows, and a remainder
    student, teacher = model(1), model(2)
    got = quality(student, ids, teacher)
    s = torch.from_numpy(np.stack([student(w) for w in ids]))[:, :-1].double().reshape(-1, VOCAB)
    t = torch.from_numpy(np.stack([teacher(w) for w in ids]))[:, :-1].double().reshape(-1, VOCAB)
    targets = torch.from_numpy(ids[:, 1:].reshape(-1))
    assert got.perplexity == pytest.approx(math.exp(F.cross_entropy(s, targets)), rel=1e-9)
    kl = F.kl_div(s.log_softmax(1), t.log_softmax(1), log_target=True, reduction="batchmean")
    assert got.kl == pytest.approx(float(kl), rel=1e-9)
    assert got.top1_agreement == pytest.approx(float((s.argmax(1) == t.argmax(1)).double().mean()))
    assert (got.tokens, got.context) == (225, 75)


def test_a_model_agrees_with_itself_and_runs_once() -> None:
    calls = []
    inner = model(3)

    def counted(ids: np.ndarray) -> np.ndarray:
        calls.append(1)
        return inner(ids)

    ids = np.random.default_rng(1).integers(0, VOCAB, (2, 9))
    got = compare({"self": counted}, ids, counted)["self"]
    assert got.kl == 0
    assert got.top1_agreement == 1
    assert len(calls) == 2


def test_without_a_teacher_there_is_no_kl() -> None:
    got = quality(model(4), np.zeros((1, 5), np.int64))
    assert got.kl is None
    assert got.top1_agreement is None


def test_a_uniform_model_has_the_vocabularys_perplexity() -> None:
    got = quality(lambda ids: np.zeros((len(ids), VOCAB), np.float32), np.ones((2, 6), np.int64))
    assert got.perplexity == pytest.approx(VOCAB)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(TercetError, match="not finite"):
        quality(lambda ids: np.full((len(ids), VOCAB), np.nan, np.float32), np.zeros((1, 5), np.int64))


def test_other_vocabulary_is_refused() -> None:
    with pytest.raises(TercetError, match="vocabularies differ"):
        quality(model(1), np.zeros((1, 5), np.int64), lambda ids: np.zeros((len(ids), VOCAB + 1), np.float32))
