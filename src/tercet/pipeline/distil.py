"""Distillation as a stage of `quantize`: the calibrated model learns from the original, and is frozen again.

Checkpoints and journal lie in the cache, under a name made of all that decides the result: the same command goes on
from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tercet.calibrate import Quantized
from tercet.modules.module import ProgramModule
from tercet.pipeline.lessons.lesson import Lesson
from tercet.pipeline.making import Making, Watch
from tercet.pipeline.student import build_student, vectors
from tercet.quantizers import freeze
from tercet.tensor import TernaryTensor
from tercet.train import load_weights, train
from tercet.train.processes import Processes

__all__ = ["Distilled", "control", "distil", "run_name"]


@dataclass(frozen=True)
class Distilled:
    """What training gives.

    Attributes:
        tensors: every planned matrix and every vector.
        folder: of the run.
        teacher_cpu_seconds: what a stored teacher took in this call, before training; little where the cache has its
            answers.
    """

    tensors: dict[str, Quantized]
    folder: Path
    teacher_cpu_seconds: float


def distil(
    making: Making, lesson: Lesson, start: Mapping[str, Quantized], runs: Path, watch: Watch, *, validate: bool = True
) -> Distilled:
    """Trains, or goes on from what an earlier call left. Of several processes all call this; the first's result is
    whole.

    Args:
        start: from calibration or rounding.
        runs: folder of runs and of stored teachers.
        validate: measure as `train.evaluate_every` says.

    Raises TrainError, StorageError and those of the quantizers.
    """
    recipe, processes = making.recipe, Processes()
    settings, how = recipe.distil, recipe.train
    assert settings is not None
    assert how is not None
    since = time.process_time()
    with processes.first_goes_first():
        taught = lesson.teach(runs, watch)
    folder, asked = runs / run_name(making, lesson), time.process_time() - since
    # Rounded weights are no better start than the quantizer's own, which is the pretrained weight itself.
    known = start if recipe.calibrate else {n: t for n, t in start.items() if not isinstance(t, TernaryTensor)}
    tensors = making.source.tensors()
    student = build_student(making.student, tensors, making.plan, known, settings.activations)
    result = train(
        lesson.task(student, taught.teacher),
        taught.arrays,
        how,
        folder,
        identified={"read": lesson.digest()},
        # Of a sharded student no process can run a whole forward pass by itself.
        evaluate=lesson.validation() if validate and not processes.sharded else None,
        progress=watch.training(how.steps),
    )
    if result.sharded and processes.first:
        student = build_student(making.student, tensors, making.plan, known, settings.activations)
        load_weights(lesson.task(student, None), folder)
    if not processes.first:
        return Distilled(dict(start), folder, asked)
    return Distilled({**start, **vectors(student), **freeze(student)}, folder, asked)


def run_name(making: Making, lesson: Lesson) -> str:
    """Of the run's folder: a hash of all that decides its result."""
    fields = making.recipe.model_dump(mode="json", exclude={"name", "description", "evaluate"})
    facts = json.dumps([making.source.origin, fields, lesson.digest()], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def control(making: Making, lesson: Lesson, folder: Path, *, validate: bool = False) -> ProgramModule:
    """The original itself, trained on for the recipe's steps by its own task: distillation cannot claim
    what that gains.

    Args:
        folder: of the run.
        validate: as of `distil`.
    """
    assert making.recipe.train is not None
    module = ProgramModule(making.model, making.source.tensors())
    task, arrays = lesson.control(module)
    train(
        task,
        arrays,
        making.recipe.train,
        folder,
        identified={"read": lesson.digest()},
        evaluate=lesson.validation() if validate else None,
    )
    return module
