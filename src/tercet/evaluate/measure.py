"""What a user names, measured: perplexity, KL and agreement on a text; metrics on sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercet import fsio
from tercet.data.sets import open_set
from tercet.data.texts import choose
from tercet.data.windows import windows
from tercet.errors import TercetError
from tercet.evaluate.models import open_embedder, open_model
from tercet.evaluate.picture_rows import bars, check_bars
from tercet.evaluate.pictures import as_dict, measure
from tercet.evaluate.text import quality
from tercet.progress import Progress, silent

__all__ = ["evaluate", "evaluate_pictures"]


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


def evaluate_pictures(
    model: str | Path,
    datasets: Sequence[str | Path],
    *,
    original: str | Path | None = None,
    limit: int | None = None,
    linear: bool = False,
    plot: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures a model, and the one it was made of, on sets of pictures.

    Args:
        datasets: names or paths, as `tercet.data.sets.open_set` takes them.
        original: the model it is compared with.
        limit: so many pictures of each only, evenly from its classes.
        linear: a linear probe too, where there are training pictures.
        plot: a PNG to draw. Whether that can be done is checked first; what fails nevertheless is "plot_failed".

    Returns {"datasets": [...], "mean": of the sets' own metrics, ...}; results are those of "model" and of "original".
    Raises TercetError.
    """
    if plot is not None:
        check_bars(plot)
    sets = [open_set(source) for source in datasets]  # all names are checked before any model is opened
    places = {"model": model, **({} if original is None else {"original": original})}
    embedders = {name: open_embedder(place, threads=threads) for name, place in places.items()}
    results = []
    for pictures in sets:
        made = {
            name: measure(embedder, pictures, limit=limit, linear=linear, workers=threads, progress=progress)
            for name, embedder in embedders.items()
        }
        results.append(as_dict(pictures, made))
    failed = None if plot is None else _drawn(plot, results)
    return {
        "model": str(model),
        "original": None if original is None else str(original),
        "datasets": results,
        "mean": {name: float(np.mean([one["models"][name][one["metric"]] for one in results])) for name in places},
        "plot": None if plot is None or failed else str(plot),
        "plot_failed": failed,
    }


def _drawn(place: Path, results: list[dict[str, Any]]) -> str | None:
    """Writes the bars; why not, where that fails: what was measured for hours is not lost with them."""
    try:
        fsio.atomic_file(place, bars(results))
    except Exception as error:  # matplotlib raises of everything
        return str(error) if isinstance(error, TercetError) else f"{place}: {type(error).__name__}: {str(error)[:120]}"
    return None
