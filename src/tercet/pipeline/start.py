"""What packing or training begins with: every matrix calibrated, a part of the model after the other, or rounded.

What is trained begins with the levels of `learned`, whichever quantizer trains it (with a shift where it is `learned`
with one): they are calibrated once for all, and methods compared from there begin with the same codes and scales.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tercet.calibrate import Quantized, calibrate, rounded
from tercet.pipeline.lessons.lesson import Lesson
from tercet.pipeline.making import Making, Watch
from tercet.quantizers import LearnedConfig
from tercet.recipe import Planned, Recipe
from tercet.sources.cache import cache_dir

__all__ = ["Start", "begin", "starting_plan"]


@dataclass(frozen=True)
class Start:
    """Attributes: tensors: every planned matrix, and the last norm where it was fitted; cpu_seconds: of all threads,
    those of blocks that came from the cache too.
    """

    tensors: dict[str, Quantized]
    cpu_seconds: float


def begin(making: Making, lesson: Lesson, watch: Watch) -> Start:
    """Calibrates, or rounds where the recipe has no `calibrate` or the plan no quantizer.

    Raises TercetError where there is nothing to read, or weights do not fit.
    """
    settings, tensors, plan = making.calibrate, making.source.tensors(), making.plan
    if settings is None:
        before, made = time.process_time(), {}
        for done, (name, planned) in enumerate(plan.items(), start=1):
            made[name] = rounded(np.array(tensors[name]), planned, name)
            watch.step("round", done, len(plan))
        return Start(made, time.process_time() - before)
    spent: list[float] = []
    solved: dict[str, Quantized] = {}
    chosen = starting_plan(making.recipe, plan)
    for part, program in making.model.parts.items():
        what = f"calibrate {part} blocks" if len(making.model.parts) > 1 else "calibrate blocks"
        watch.step(what, 0, len(program.blocks))  # the first block may take minutes
        solved |= calibrate(
            program,
            tensors,
            {name: planned for name, planned in chosen.items() if name in program.weights},
            lesson.inputs(part, settings, watch),
            settings,
            cache=cache_dir() / "calibration",
            progress=lambda i, n, what=what: watch.step(what, i, n),  # type: ignore[misc]
            spent=spent.append,
        )
    return Start(solved, sum(spent))


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
