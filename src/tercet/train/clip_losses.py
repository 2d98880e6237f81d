"""Losses of a model of pictures and texts: its own task, and what its teacher made of the same pictures and texts.

With I and T the embeddings of a batch of pairs, each of length 1, tau the logit scale, s the student and t the teacher:

    task   (CE(tau Is Ts') + CE(tau Ts Is')) / 2                          CLIP's own (arXiv:2103.00020)
           or mean over pairs of -log sigmoid(+-(tau is.ts + bias))       SigLIP's (arXiv:2303.15343)
    fd     mean |Is - It|^2 + mean |Ts - Tt|^2                            feature distillation
    icl    (CE(tau Is Tt') + CE(tau Ts It')) / 2                          interactive contrastive learning
    ckd    (KL(It Tt' || Is Ts') + KL(Tt It' || Ts Is')) / 2              contrastive relational distillation
    off    mean over blocks and tokens of 1 - cos                         as for language models (`features`)

The last four as CLIP-KD has them (arXiv:2307.12732); TernaryCLIP distils "in the manner of" these, without saying its
terms. Pairs of one group (equal captions, one class) are right answers for each other: CE's target is spread evenly
over a row's group.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["contrastive", "distance", "interactive", "normalised", "relational", "sigmoid"]


def normalised(x: Tensor) -> Tensor:
    """float32[n, dim], each row of length 1."""
    return F.normalize(x.float(), dim=-1)


def contrastive(image: Tensor, text: Tensor, scale: Tensor, right: Tensor) -> Tensor:
    """0-dim.

    Args:
        image, text: float32[n, dim], normalised.
        right: bool[n, n]: which texts are right for which picture; symmetric, with a diagonal of True.
    """
    logits = scale * image @ text.T
    return (_cross_entropy(logits, right) + _cross_entropy(logits.T, right)) / 2


def sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor, right: Tensor) -> Tensor:
    """0-dim, likewise: the sum over texts, the mean over pictures."""
    logits = scale * image @ text.T + bias
    return -F.logsigmoid(logits.where(right, -logits)).sum(1).mean()


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """0-dim: mean squared distance of rows of length 1; 2 - 2 cos."""
    return (student - teacher).square().sum(1).mean()


def interactive(
    image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, scale: Tensor, right: Tensor
) -> Tensor:
    """0-dim: each side's student against the other side's teacher."""
    one = _cross_entropy(scale * image @ teacher_text.T, right)
    return (one + _cross_entropy(scale * text @ teacher_image.T, right)) / 2


def relational(image: Tensor, text: Tensor, teacher_image: Tensor, teacher_text: Tensor, scale: Tensor) -> Tensor:
    """0-dim: how far the student's similarities within the batch are from the teacher's, in nats."""
    student, teacher = scale * image @ text.T, scale * teacher_image @ teacher_text.T
    return (_divergence(student, teacher) + _divergence(student.T, teacher.T)) / 2


def _cross_entropy(logits: Tensor, right: Tensor) -> Tensor:
    target = right.float()
    return F.cross_entropy(logits, target / target.sum(1, keepdim=True))


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student), the mean over rows."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True)
