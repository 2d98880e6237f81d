"""What making a model will take, said before any of it is done: from config and recipe alone, no weight is read.

    folder    the bytes of each matrix in its format, vectors in float32, tokenizer
    memory    bytes a weight of the dearest stage: rounding 2, calibration 3, comparison 4, distillation 20
    time      multiplications of the stages at RATE a thread; rough, within a factor of two or three

Calibration multiplies each linear's inputs with themselves (tokens * in^2) and with its weights twice, and works
through a matrix column by column (out * in^2, a sweep each); a step of distillation is a pass of the teacher, and three
of the student's.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from tercet.packing import stored_shapes
from tercet.pipeline.making import Making

__all__ = ["Forecast", "forecast", "planned"]

RATE = 25e9  # multiplications and additions a second, of a thread of a CPU with AVX2 or better
ROUND, CALIBRATE, COMPARE, DISTIL = 2, 3, 4, 20  # bytes a weight
RUNTIME_MB = 500  # Python and torch


@dataclass(frozen=True)
class Forecast:
    """Attributes: family: the model_type; weights: of the whole model; plan: as `planned`; folder_mb, memory_mb: 10^6
    bytes; minutes: of making the folder, the comparison not counted.
    """

    family: str
    weights: int
    plan: str
    folder_mb: float
    memory_mb: float
    minutes: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(making: Making, *, compared: bool, threads: int | None) -> Forecast:
    """What `tercet.pipeline.run.make` will take.

    Args:
        compared: whether the packed model is compared with the original.
        threads: of torch; all CPUs this process may use if None.
    """
    weights = sum(math.prod(weight.shape) for weight in making.student.weights.values())
    recipe = making.recipe
    a_weight = max(
        ROUND,
        CALIBRATE if recipe.calibrate else 0,
        COMPARE if compared else 0,
        DISTIL if recipe.train else 0,
    )
    seconds = _operations(making, weights) / (RATE * (threads or len(os.sched_getaffinity(0))))
    return Forecast(
        making.model.family, weights, planned(making), _bytes(making) / 1e6, RUNTIME_MB + a_weight * weights / 1e6,
        seconds / 60,
    )  # fmt: skip


def planned(making: Making) -> str:
    """What becomes of the matrices: "210 ternary in t2, groups of 128; 1 int8"."""
    kinds: Counter[str] = Counter()
    for name, plan in making.plan.items():
        width = making.model.weights[name].shape[1]
        if plan.quantizer is None:
            kinds[str(plan.keep)] += 1
            continue
        levels = "binary" if plan.quantizer.two_levels else "ternary"
        kinds[f"{levels} in {plan.format}, {_group(plan.group_size, width)}"] += 1
    return "; ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _group(size: int, width: int) -> str:
    return "a scale a row" if size == width else f"groups of {size}"


def _bytes(making: Making) -> int:
    total = sum(len(content) for content in making.source.tokenizer_files().values())
    for name, weight in making.student.weights.items():
        plan = making.plan.get(name)
        if plan is None:
            total += 4 * math.prod(weight.shape)
            continue
        rows, columns = weight.shape
        for dtype, shape in stored_shapes(plan.format, (rows, columns), plan.group_size, shift=False).values():
            total += dtype.itemsize * math.prod(shape)
    return total


def _operations(making: Making, weights: int) -> float:
    recipe = making.recipe
    total = 1000.0 * weights  # rounding and packing
    if recipe.calibrate is not None:
        tokens, passes = recipe.calibrate.tokens, 2 * (recipe.calibrate.sweeps + 1)
        for name, plan in making.plan.items():
            if plan.quantizer is not None:
                rows, columns = making.model.weights[name].shape
                total += 2.0 * tokens * columns**2 + 4.0 * tokens * rows * columns + passes * rows * columns**2
        if recipe.calibrate.reconstruct is not None:
            total += 8.0 * recipe.calibrate.reconstruct.epochs * tokens * weights
    if recipe.train is not None:
        rows = recipe.train.steps * recipe.train.batch * recipe.train.accumulation
        for part in making.model.parts.values():
            inside = sum(math.prod(part.weights[name].shape) for name in part.linears)
            total += 8.0 * rows * min(part.context, recipe.train.context) * inside
    return total
