"""One text of several kinds, measured kind by kind: what a model is worth on text unlike the one it was made with.

The first kind is the one that perplexities are quoted of, and has all the tokens asked for; the others half as many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tercet.data.windows import spread
from tercet.evaluate.text import Logits, Quality, compare

__all__ = ["compare_kinds", "kinds_of", "ratios", "scores"]

Windows = NDArray[np.int64]


def kinds_of(cuts: Mapping[str, Windows], tokens: int) -> dict[str, Windows]:
    """The windows of each kind that are measured."""
    return {kind: spread(each, tokens if not index else tokens // 2) for index, (kind, each) in enumerate(cuts.items())}


def compare_kinds(
    students: Mapping[str, Logits],
    cuts: Mapping[str, Windows],
    teacher: Logits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Quality]]:
    """`tercet.evaluate.compare` for each kind: kind -> model -> quality."""
    total, done, found = sum(map(len, cuts.values())), 0, {}
    for kind, windows in cuts.items():

        def step(index: int, _: int, before: int = done) -> None:
            if progress is not None:
                progress(before + index, total)

        found[kind] = compare(students, windows, teacher, step)
        done += len(windows)
    return found


def ratios(found: Mapping[str, Mapping[str, Quality]], name: str, original: str) -> dict[str, float]:
    """Times the original's perplexity, for each kind."""
    return {kind: each[name].perplexity / each[original].perplexity for kind, each in found.items()}


def scores(found: Mapping[str, Mapping[str, Quality]], name: str, original: str) -> dict[str, float]:
    """What a row shows of a model: the first kind's figures, and the mean and the worst of the kinds' ratios."""
    first = next(iter(found.values()))[name]
    shown = {"perplexity": first.perplexity, "kl": first.kl or 0.0, "top1_agreement": first.top1_agreement or 0.0}
    if len(found) > 1:
        times = list(ratios(found, name, original).values())
        shown |= {"mean_of_kinds": float(np.mean(times)), "worst_kind": max(times)}
    return shown
