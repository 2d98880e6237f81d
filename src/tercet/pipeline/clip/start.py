"""What packing or training of two towers begins with: every matrix calibrated, a tower after the other, or rounded."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.calibrate import Quantized, calibrate, rounded
from tercet.data.pairs import ClipData
from tercet.pipeline.start import starting_plan
from tercet.program import Model
from tercet.progress import Progress
from tercet.recipe import Calibrate, Planned, Recipe
from tercet.sources.cache import cache_dir

__all__ = ["Start", "begin"]


@dataclass(frozen=True)
class Start:
    """Attributes: tensors: every planned matrix; cpu_seconds: of all threads, of blocks from the cache too."""

    tensors: dict[str, Quantized]
    cpu_seconds: float


def begin(
    towers: Model,
    tensors: Mapping[str, NDArray[np.float32]],
    recipe: Recipe,
    plan: Mapping[str, Planned],
    data: ClipData | None,
    step: Progress,
) -> Start:
    """Calibrates, or rounds where the recipe has no `calibrate`, the plan no quantizer.

    Args:
        data: pictures and texts; which belong together does not matter here. None where nothing is calibrated.
        step: called with (what, done, total).

    Raises QuantizeError where weights do not fit.
    """
    settings = recipe.calibrate
    if settings is None or data is None or not any(planned.quantizer for planned in plan.values()):
        before, made = time.process_time(), {}
        for done, (name, planned) in enumerate(plan.items(), start=1):
            made[name] = rounded(np.array(tensors[name]), planned)
            step("round", done, len(plan))
        return Start(made, time.process_time() - before)
    spent: list[float] = []
    solved: dict[str, Quantized] = {}
    chosen = starting_plan(recipe, plan)
    for what, program, rows in (("image", towers.image, data.patches), ("text", towers.text, data.ids)):
        solved |= calibrate(
            program,
            tensors,
            {name: planned for name, planned in chosen.items() if name in program.weights},
            _sample(rows, settings),
            settings,
            cache=cache_dir() / "calibration",
            progress=lambda i, n, what=what: step(f"calibrate {what} blocks", i, n),  # type: ignore[misc]
            spent=spent.append,
        )
    return Start(solved, sum(spent))


def _sample(rows: NDArray[Any], settings: Calibrate) -> NDArray[Any]:
    """As many pictures or texts as have `settings.tokens` patches or tokens, from all over: float32 or int64."""
    drawn = np.random.default_rng(settings.seed).permutation(len(rows))[: max(1, settings.tokens // rows.shape[1])]
    found = rows[np.sort(drawn)]
    return found if found.dtype == np.int64 else found.astype(np.float32)
