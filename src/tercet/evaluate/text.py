"""Perplexity, KL(teacher || student) and top-1 agreement, one window at a time.

Windows are the outer loop and students the inner one: the teacher runs once a window for all of them, and only
[context, vocab] logits of two models are ever in memory. Sums are float64; all three numbers are means over the same
positions, those that predict a scored token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError

__all__ = ["Logits", "Quality", "compare", "quality"]

Logits = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""A model: ids int64[n] of a fresh sequence -> float32[n, vocab]."""

ROWS = 32  # positions turned into probabilities at once: 32 * 49152 * 8 bytes is 13 MB


@dataclass(frozen=True)
class Quality:
    """Means over all scored tokens.

    Attributes:
        perplexity: exp of the mean negative log-likelihood.
        kl: mean KL(teacher || student) in nats a token; None without a teacher.
        top1_agreement: share of positions, 0..1, at which both models' likeliest token is the same; None likewise.
        tokens: tokens read, scored or not: windows * context.
        context: tokens a window.
    """

    perplexity: float
    kl: float | None
    top1_agreement: float | None
    tokens: int
    context: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def quality(
    student: Logits,
    windows: NDArray[np.int64],
    teacher: Logits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Quality:
    """Measures one model; see `compare`."""
    return compare({"student": student}, windows, teacher, progress)["student"]


def compare(
    students: Mapping[str, Logits],
    windows: NDArray[np.int64],
    teacher: Logits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Quality]:
    """Measures several models on the same windows.

    Args:
        students: models by name.
        windows: int64[n, context], as `windows` cuts them.
        teacher: what KL and top-1 agreement refer to; may be one of the students, which then runs only once.
        progress: called with (windows done, windows) after each window.

    Raises TercetError where a model's logits are not finite or the vocabularies differ.
    """
    sums = {name: np.zeros(3) for name in students}  # negative log-likelihood, KL, agreements
    for index, ids in enumerate(windows):
        reference = _checked("the teacher", teacher(ids)) if teacher is not None else None
        for name, student in students.items():
            same = student is teacher and reference is not None
            logits = reference if same and reference is not None else _checked(name, student(ids))
            sums[name] += _window(logits, ids, reference)
        if progress is not None:
            progress(index + 1, len(windows))
    scored = windows.shape[0] * (windows.shape[1] - 1)
    return {name: _mean(total / scored, windows, teacher is not None) for name, total in sums.items()}


def _mean(mean: NDArray[np.float64], windows: NDArray[np.int64], with_teacher: bool) -> Quality:
    return Quality(
        perplexity=math.exp(mean[0]) if mean[0] < 700 else math.inf,
        kl=float(mean[1]) if with_teacher else None,
        top1_agreement=float(mean[2]) if with_teacher else None,
        tokens=int(windows.size),
        context=int(windows.shape[1]),
    )


def _window(
    logits: NDArray[np.float32], ids: NDArray[np.int64], reference: NDArray[np.float32] | None
) -> NDArray[np.float64]:
    """float64[3]: sums over the window's positions 0..n-2, each of which predicts the next token."""
    if reference is not None and reference.shape != logits.shape:
        raise TercetError(f"vocabularies differ: {logits.shape[1]} and {reference.shape[1]} tokens; compare relatives")
    sums = np.zeros(3)
    for begin in range(0, len(ids) - 1, ROWS):
        end = min(begin + ROWS, len(ids) - 1)
        student = _log_softmax(logits[begin:end])
        sums[0] -= student[np.arange(end - begin), ids[begin + 1 : end + 1]].sum()
        if reference is not None:
            teacher = _log_softmax(reference[begin:end])
            student -= teacher
            sums[1] -= np.einsum("ij,ij->", np.exp(teacher), student)
            sums[2] += (logits[begin:end].argmax(axis=1) == reference[begin:end].argmax(axis=1)).sum()
    return sums


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _checked(name: str, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(logits).all():
        raise TercetError(f"{name}: logits are not finite; the model is broken or its weights are")
    return logits
