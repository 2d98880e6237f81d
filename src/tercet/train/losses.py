"""What a student's rows of logits are compared with: one number a token each, for a chunk of tokens.

T is the teacher, S the student, b and g are numbers of the chunk:

    forward   KL(T || S)
    reverse   KL(S || T)
    cakld     b KL(S || T) + (1 - b) KL(T || S)    b = mean teacher probability of the labels    (BitDistiller,
                                                                                                  arXiv:2402.10631)
    eakld     g KL(S || T) + (1 - g) KL(T || S)    g = clamp(1 - mean H(T) / ln 16, 0, 1)
    ce        - log S(label)

All at temperature 1. BitDistiller measures b once, over its training set; here each chunk has its own.
A teacher stored as its k likeliest tokens is compared in k + 1 outcomes: those, and all others together.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.recipe import Divergence

__all__ = ["cross_entropy", "divergence", "topk_divergence"]

FLAT = math.log(16)  # entropy, in nats, from which on the forward direction alone counts


def divergence(kind: Divergence, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
    """float32[tokens]: how far the student's logits are from the teacher's, in nats.

    Args:
        student, teacher: logits [tokens, vocab].
        labels: int64[tokens], the tokens that came next, -100 where none did; cakld needs them.
    """
    if kind == "forward":
        return cast(Tensor, _Forward.apply(student, teacher))  # type: ignore[no-untyped-call]
    s, t = F.log_softmax(student.float(), -1), F.log_softmax(teacher.float(), -1)
    if kind == "reverse":
        return _kl(s, t)
    share = _label_share(t, labels) if kind == "cakld" else (1 - _entropy(t).mean() / FLAT).clamp(0, 1)
    return share * _kl(s, t) + (1 - share) * _kl(t, s)


def topk_divergence(student: Tensor, values: Tensor, index: Tensor) -> Tensor:
    """float32[tokens]: KL(T || S) over the teacher's k likeliest tokens and one bucket for all others.

    Args:
        student: logits [tokens, vocab].
        values: log-probabilities of the teacher [tokens, k].
        index: int64[tokens, k], the tokens they belong to.
    """
    t = values.float()
    s = F.log_softmax(student.float(), -1).gather(-1, index)
    return _kl(_with_rest(t), _with_rest(s))


def cross_entropy(student: Tensor, labels: Tensor) -> Tensor:
    """float32[tokens]: -log S(label); 0 where the label is -100."""
    return F.cross_entropy(student.float(), labels, reduction="none")


class _Forward(torch.autograd.Function):
    """KL(T || S) with its gradient S - T: half the passes over the vocabulary that autograd makes."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        s, t = F.log_softmax(student, -1, dtype=torch.float32), F.log_softmax(teacher, -1, dtype=torch.float32)
        p = t.exp()
        divergences: Tensor = torch.linalg.vecdot(p, t.sub_(s))
        ctx.save_for_backward(s, p)
        ctx.dtype = student.dtype
        return divergences

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        s, p = ctx.saved_tensors
        gradient: Tensor = s.exp().sub_(p).mul_(grads[0][:, None]).to(ctx.dtype)
        return gradient, None


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(P || Q) of log-probabilities."""
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)


def _entropy(p: Tensor) -> Tensor:
    return -(p.exp() * p).sum(-1)


def _label_share(teacher: Tensor, labels: Tensor | None) -> Tensor:
    if labels is None:
        raise ValueError("cakld needs labels")
    known = labels >= 0
    chosen = teacher.gather(-1, labels.clamp(min=0)[:, None])[:, 0].exp()
    return (chosen * known).sum() / known.sum().clamp(min=1)


def _with_rest(p: Tensor) -> Tensor:
    """Log-probabilities with that of everything else behind them."""
    rest = (1 - p.exp().sum(-1, keepdim=True)).clamp(min=1e-7)
    return torch.cat([p, rest.log()], -1)
