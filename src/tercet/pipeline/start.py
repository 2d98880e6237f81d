"""What packing or training begins with: every matrix calibrated on a text, or rounded without one.

What is trained begins with the levels of `learned`, whichever quantizer trains it (with a shift where it is `learned`
with one): they are calibrated once for all, and methods compared from there begin with the same codes and scales.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet import sources
from tercet.calibrate import Quantized, calibrate, rounded
from tercet.data import windows
from tercet.data.texts import Text, choose
from tercet.evaluate.originals import set_threads
from tercet.program import Program
from tercet.progress import Progress
from tercet.quantizers import LearnedConfig
from tercet.recipe import Calibrate, Planned, Recipe
from tercet.runtime import Tokenizer
from tercet.sources.cache import cache_dir

__all__ = ["Start", "begin", "calibration_windows", "starting_plan"]


@dataclass(frozen=True)
class Start:
    """Attributes: tensors: every planned matrix, and the last norm where it was fitted; text: what calibration read,
    None where weights were only rounded; cpu_seconds: of all threads, those of blocks that came from the cache too.
    """

    tensors: dict[str, Quantized]
    text: Text | None
    cpu_seconds: float


def begin(
    source: sources.Source,
    program: Program,
    recipe: Recipe,
    plan: Mapping[str, Planned],
    file: str | Path | None,
    threads: int | None,
    step: Progress,
) -> Start:
    """Calibrates, or rounds where the recipe has no `calibrate` or the plan no quantizer.

    Args:
        file: calibration text; the recipe's if None.
        threads: of torch.
        step: called with (what, done, total).

    Raises TercetError where there is no text, or weights do not fit.
    """
    settings, tensors = recipe.calibrate, source.tensors()
    set_threads(threads)
    if settings is None or not any(planned.quantizer for planned in plan.values()):
        before, made = time.process_time(), {}
        for done, (name, planned) in enumerate(plan.items(), start=1):
            made[name] = rounded(np.array(tensors[name]), planned)
            step("round", done, len(plan))
        return Start(made, None, time.process_time() - before)
    cut, text = calibration_windows(source, program, settings, file)
    spent: list[float] = []
    solved = calibrate(
        program,
        tensors,
        starting_plan(recipe, plan),
        cut,
        settings,
        cache=cache_dir() / "calibration",
        progress=lambda i, n: step("calibrate blocks", i, n),
        spent=spent.append,
    )
    return Start(solved, text, sum(spent))


def calibration_windows(
    source: sources.Source, program: Program, settings: Calibrate, file: str | Path | None
) -> tuple[NDArray[np.int64], Text]:
    """int64[n, context] of the training split, and the text they are of."""
    text = choose(file or settings.text, "train", source, settings.tokens, settings.seed)
    tokenizer = Tokenizer.open(source.folder)
    prefix = tokenizer.prefix()
    ids = tokenizer.encode(text.content, around=False)
    cut = windows(ids, min(settings.context, program.context), prefix=prefix)
    # From all over the text: a few whole articles would say less about the model's inputs than parts of many.
    drawn = np.random.default_rng(settings.seed).permutation(len(cut))[: max(1, settings.tokens // cut.shape[1])]
    return cut[np.sort(drawn)], text


def starting_plan(recipe: Recipe, plan: Mapping[str, Planned]) -> Mapping[str, Planned]:
    """The plan to calibrate by: with `learned` in the place of every quantizer, where the recipe trains."""
    if recipe.train is None:
        return plan
    return {name: replace(planned, quantizer=_levels(planned)) for name, planned in plan.items()}


def _levels(planned: Planned) -> LearnedConfig | None:
    quantizer = planned.quantizer
    if quantizer is None or isinstance(quantizer, LearnedConfig):
        return quantizer
    return LearnedConfig(group_size=quantizer.group_size, binary=quantizer.two_levels)
