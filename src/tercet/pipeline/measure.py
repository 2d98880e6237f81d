"""Perplexity, KL and agreement of whatever a user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet.data import windows
from tercet.data.texts import choose
from tercet.errors import TercetError
from tercet.evaluate import quality
from tercet.evaluate.models import open_model
from tercet.progress import Progress, silent

__all__ = ["evaluate"]


def evaluate(
    model: str | Path,
    *,
    text: str | Path | None = None,
    context: int = 512,
    tokens: int | None = None,
    against: str | Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures a packed folder by the engine, or a float source by torch.

    Args:
        model: packed folder, or source.
        text: a text file; the validation split of the cached default text if None.
        context: tokens a window; the model's own limit if that is less.
        tokens: at most so many; the whole text if None.
        against: the model that KL and top-1 agreement refer to.

    Returns the fields of `Quality`, and beside them `text` (its name), `prefix` (ids in front of each window) and
    `runs_on`. Raises TercetError where there is no text, or the two models split it differently into tokens.
    """
    chosen = choose(text or "default", "validation")
    student = open_model(model, threads=threads)
    ids = student.encode(chosen.content)
    teacher = open_model(against, threads=threads) if against is not None else None
    if teacher is not None and teacher.encode(chosen.content) != ids:
        raise TercetError(
            f"{model} and {against} split the text into different tokens; compare models of one tokenizer"
        )
    cut = windows(ids, min(context, student.context), tokens, prefix=student.prefix())
    step = progress or silent
    reference = None if teacher is None else teacher.logits
    result = quality(student.logits, cut, reference, lambda done, total: step("windows", done, total))
    return {**result.as_dict(), "text": chosen.name, "prefix": student.prefix(), "runs_on": student.runs_on}
