"""Losses against their formulas in float64, and the chunked head against autograd of the whole."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.train import features
from tercet.train.head import ROWS, Head, head_losses
from tercet.train.losses import cross_entropy, divergence, topk_divergence

G = torch.Generator().manual_seed(0)
STUDENT, TEACHER = torch.randn(7, 40, generator=G) * 3, torch.randn(7, 40, generator=G) * 3
LABELS = torch.tensor([3, 0, 39, 12, -100, 7, -100])


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


def expected(kind: str) -> Tensor:
    s, t = STUDENT.double().softmax(-1), TEACHER.double().softmax(-1)
    if kind == "forward":
        return kl(t, s)
    if kind == "reverse":
        return kl(s, t)
    if kind == "cakld":
        share = sum(t[i, label] for i, label in enumerate(LABELS.tolist()) if label >= 0) / 5
    else:
        share = min(max(1 + (t * t.log()).sum(-1).mean() / math.log(16), 0), 1)
        assert 0.05 < share < 0.95
    return share * kl(s, t) + (1 - share) * kl(t, s)


@pytest.mark.parametrize("kind", ["forward", "reverse", "cakld", "eakld"])
def test_divergences(kind: str) -> None:
    found = divergence(kind, STUDENT, TEACHER, LABELS)
    torch.testing.assert_close(found.double(), expected(kind), rtol=1e-4, atol=1e-5)
    assert divergence(kind, TEACHER, TEACHER, LABELS).abs().max() < 1e-5


def test_the_forward_gradient_is_that_of_the_formula() -> None:
    student = STUDENT.double().requires_grad_()
    upstream = torch.rand(7, generator=G)
    (kl(TEACHER.double().softmax(-1), student.softmax(-1)) * upstream).sum().backward()
    own = STUDENT.clone().requires_grad_()
    (divergence("forward", own, TEACHER) * upstream).sum().backward()
    torch.testing.assert_close(own.grad.double(), student.grad, rtol=1e-4, atol=1e-6)


def test_topk_has_one_bucket_for_the_rest() -> None:
    t, s = TEACHER.double().softmax(-1), STUDENT.double().softmax(-1)
    values, index = TEACHER.log_softmax(-1).topk(6)
    found = topk_divergence(STUDENT, values, index)
    p = torch.cat([t.gather(1, index), 1 - t.gather(1, index).sum(1, keepdim=True)], 1)
    q = torch.cat([s.gather(1, index), 1 - s.gather(1, index).sum(1, keepdim=True)], 1)
    torch.testing.assert_close(found.double(), kl(p, q), rtol=1e-3, atol=1e-4)
    assert (found <= divergence("forward", STUDENT, TEACHER) + 1e-4).all()  # merging outcomes never adds


def test_labels_that_are_not_there_cost_nothing() -> None:
    found = cross_entropy(STUDENT, LABELS)
    assert found[4] == 0
    torch.testing.assert_close(found[0], -STUDENT[0].log_softmax(0)[3])


@pytest.mark.parametrize("biased", [False, True])
def test_the_head_in_chunks_is_the_head(biased: bool) -> None:
    """Loss, parts and gradient, over more than two chunks, the last one short."""
    rows = 2 * ROWS + 17
    generator = torch.Generator().manual_seed(1)
    hidden, weight, bias, teacher = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, 8), (30, 8), (30,), (rows, 30))
    )
    head = Head(weight, bias if biased else None)
    labels = torch.randint(30, (rows,), generator=generator)

    def losses(logits: Tensor, at: slice) -> dict[str, tuple[float, Tensor]]:
        return {
            "kl": (0.7, F.kl_div(logits.log_softmax(-1), teacher[at].softmax(-1), reduction="none").sum(-1)),
            "ce": (0.3, F.cross_entropy(logits, labels[at], reduction="none")),
        }

    own = hidden.clone().requires_grad_()
    loss, parts = head_losses(own, head, losses)
    (loss * 3).backward()
    whole = hidden.clone().requires_grad_()
    each = {
        name: values.mean()
        for name, (_, values) in losses(whole @ weight.T + (bias if biased else 0), slice(None)).items()
    }
    plain = 0.7 * each["kl"] + 0.3 * each["ce"]
    (plain * 3).backward()
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(own.grad, whole.grad)
    assert parts.keys() == each.keys()
    for name, value in each.items():
        torch.testing.assert_close(parts[name], value.float())


def test_off_sees_directions_only() -> None:
    h = torch.randn(2, 5, 16, generator=G)
    assert features.cosine([h * 3], [h]) == pytest.approx(0, abs=1e-6)
    assert features.cosine([-h], [h]) == pytest.approx(2, abs=1e-6)
    other = torch.randn(2, 5, 16, generator=G)
    cosines = (h * other).sum(-1) / (h.norm(dim=-1) * other.norm(dim=-1))
    assert features.cosine([h, h], [other, h]) == pytest.approx((1 - cosines).mean().item() / 2, abs=1e-6)


def test_hidden_is_relative_to_each_token() -> None:
    h = torch.randn(2, 5, 16, generator=G)
    h[0, 0] *= 1000  # a huge token counts like any other
    assert features.relative([h * 1.1], [h]) == pytest.approx(0.01, rel=1e-4)


def test_relations_are_causal_attention_between_tokens() -> None:
    q, other = torch.randn(1, 4, 16, generator=G), torch.randn(1, 4, 16, generator=G)
    assert features.relations([q], [q], 8) == pytest.approx(0, abs=1e-6)
    moved = q.clone()
    moved[0, 3] = 7  # the last token: no row before it may change
    assert features.relations([moved], [q], 8) > 0.01

    def rows(x: Tensor, head: int, token: int) -> Tensor:
        part = x[0, :, head * 8 : head * 8 + 8]
        return (part[token] @ part[: token + 1].T / math.sqrt(8)).softmax(0)

    expected = sum(kl(rows(q, h, t), rows(other, h, t)) for h in range(2) for t in range(4)) / 8
    assert features.relations([other], [q], 8) == pytest.approx(expected.item(), rel=1e-4)
