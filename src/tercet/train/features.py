"""Losses between what student and teacher hold inside: hidden states of blocks, and how tokens relate in attention.

    off        mean over blocks and tokens of 1 - cos(h_S, h_T): TernaryLLM's Outlier-Friendly Feature distillation
               (arXiv:2406.07177); a few huge channels do not dominate it. Which blocks is not said: all, by default
    hidden     mean over blocks and tokens of |h_S - h_T|^2 / |h_T|^2, the ordinary one, relative for each token
    relations  mean over heads and tokens of KL(A_T || A_S), A = softmax(x x^T / sqrt(d)) over the tokens so far, of
               queries, of keys and of values (MiniLMv2, arXiv:2012.15828)

Features are compared in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cosine", "relations", "relative"]


def cosine(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """0-dim; each argument holds [windows, tokens, width] of every chosen block."""
    each = [1 - F.cosine_similarity(s.float(), t.float(), dim=-1).mean() for s, t in zip(student, teacher, strict=True)]
    return torch.stack(each).mean()


def relative(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """0-dim, likewise."""
    each = []
    for s, t in zip(student, teacher, strict=True):
        apart, size = (s.float() - t.float()).square().sum(-1), t.float().square().sum(-1)
        each.append((apart / size.clamp(min=1e-12)).mean())
    return torch.stack(each).mean()


def relations(student: Sequence[Tensor], teacher: Sequence[Tensor], head_dim: int) -> Tensor:
    """0-dim; each argument holds projections [windows, tokens, heads * head_dim]: queries, keys or values."""
    each = []
    for s, t in zip(student, teacher, strict=True):
        p, q = _relation(t, head_dim), _relation(s, head_dim)
        each.append((p.exp() * (p - q)).sum(-1).mean())
    return torch.stack(each).mean()


def _relation(x: Tensor, head_dim: int) -> Tensor:
    """Log-probabilities [windows, heads, tokens, tokens]; tokens ahead get so little that they add nothing."""
    windows, tokens, width = x.shape
    heads = x.float().reshape(windows, tokens, width // head_dim, head_dim).transpose(1, 2)
    scores = heads @ heads.transpose(-1, -2) / head_dim**0.5
    ahead = torch.ones(tokens, tokens, dtype=torch.bool, device=x.device).triu(1)
    return F.log_softmax(scores.masked_fill(ahead, -1e9), -1)
