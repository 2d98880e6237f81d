"""What a user names, measured: perplexity, KL and agreement on a text; metrics on sets of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tercet import fsio
from tercet.data.mixture import cut
from tercet.data.sets import open_set
from tercet.data.texts import choose
from tercet.errors import TercetError
from tercet.evaluate.kinds import compare_kinds, kinds_of, ratios
from tercet.evaluate.models import open_embedder, open_model
from tercet.evaluate.picture_rows import bars, check_bars
from tercet.evaluate.pictures import as_dict, measure
from tercet.progress import Progress, silent

__all__ = ["evaluate", "evaluate_pictures"]

DEFAULT = 8192  # tokens of the default text's first kind


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
        tokens: at most so many, half of them of each kind but the first; if None, the whole of a file, and `DEFAULT`
            of the default text.
        against: the model that KL and top-1 agreement refer to.

    Returns the fields of `Quality` for the text's first kind, and beside them `text` (its name), `prefix` (ids in front
    of each window), `runs_on`, and for a text of several kinds `kinds`: for each the fields of `Quality`, and with
    `against` `ratio`, times its perplexity. Raises TercetError where there is no text, or the two models split it
    differently into tokens.
    """
    chosen = choose(text or "default", "validation")
    student = open_model(model, threads=threads)
    cuts = cut(chosen, student.encode, min(context, student.context, tokens or context), student.prefix())
    teacher = open_model(against, threads=threads) if against is not None else None
    if teacher is not None and any(
        teacher.encode(content) != student.encode(content) for content in chosen.parts.values()
    ):
        raise TercetError(
            f"{model} and {against} split the text into different tokens; compare models of one tokenizer"
        )
    if len(cuts) > 1:
        cuts = kinds_of(cuts, tokens or DEFAULT)
    elif tokens is not None:
        cuts = {kind: each[: max(1, tokens // each.shape[1])] for kind, each in cuts.items()}
    step = progress or silent
    reference = None if teacher is None else teacher.logits
    models = {"student": student.logits, **({} if reference is None else {"teacher": reference})}
    found = compare_kinds(models, cuts, reference, lambda done, total: step("windows", done, total))
    shown = {kind: each["student"].as_dict() for kind, each in found.items()}
    result = {**next(iter(shown.values())), "text": chosen.name, "prefix": student.prefix(), "runs_on": student.runs_on}
    if len(shown) == 1:
        return result
    times = {} if teacher is None else ratios(found, "student", "teacher")
    kinds = {kind: each | ({"ratio": times[kind]} if times else {}) for kind, each in shown.items()}
    return {**result, "kinds": kinds}


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
