"""Makes models for a comparison, and counts what each costs.

    cpu_seconds = start (rounding or calibration) + training

of all threads of the process; reading, packing and measuring are left out, and so are evaluations during training and
learning rates that were tried. A calibration that comes from the cache counts as when it was made: each block has kept
that number. Rows that begin alike share one calibration in memory, and each is charged for it whole; what several rows
read is read once. What a stored teacher answered is not shared: each run asks, and pays.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet import fsio, sources
from tercet.compare.exam import Measured
from tercet.compare.size import facts
from tercet.pipeline.distil import distil
from tercet.pipeline.folder import write
from tercet.pipeline.lessons import Data, Lesson, lesson_for
from tercet.pipeline.making import Making, Watch, making
from tercet.pipeline.start import Start, begin, starting_plan
from tercet.recipe import Recipe
from tercet.train.journal import read_journal

__all__ = ["Made", "Workshop"]


@dataclass(frozen=True)
class Made:
    """A model.

    Attributes:
        model: a packed folder, which the next model replaces; or a module.
        facts: what the table says of it beside its scores (`tercet.compare.size`); None for the original's.
        start_cpu_seconds, training_cpu_seconds: what it cost.
        journal: of training; empty where there was none.
    """

    model: Measured
    facts: Mapping[str, Any] | None
    start_cpu_seconds: float
    training_cpu_seconds: float = 0.0
    journal: list[dict[str, Any]] = field(default_factory=list)


class Workshop:
    """Args:
    work: folder for runs and the model. data: what all models read. threads: of torch and of the engine.
    """

    def __init__(self, source: sources.Source, work: Path, data: Data, watch: Watch, threads: int | None) -> None:
        self.source, self.work, self.data, self.watch, self.threads = source, work, data, watch, threads
        self._calibrated: dict[str, Start] = {}
        self._lesson: Lesson | None = None

    def make(self, recipe: Recipe, *, validate: bool) -> Made:
        """Makes and packs a model. Its run is removed from the disk when it has ended: it has gigabytes.

        Args:
            validate: measure on the validation split during training.

        Raises TercetError.
        """
        made = making(self.source, recipe)
        lesson = self.lesson(made)
        start, folder = self._start(made, lesson), self.work / "model"
        if recipe.train is None:
            write(folder, made, lesson, start.tensors, self.watch)
            return Made(folder, facts(folder, made.model), start.cpu_seconds)
        runs = self.work / "training"
        for answers in runs.glob("*.npy"):
            answers.unlink()
        try:
            trained = distil(made, lesson, start.tensors, runs, self.watch, validate=validate)
        finally:
            gc.collect()  # models are cycles, and the next one would not fit beside them
        journal = read_journal(trained.folder / "journal.jsonl")
        write(folder, made, lesson, trained.tensors, self.watch)
        fsio.remove_folder(trained.folder)
        seconds = trained.teacher_cpu_seconds + float(journal[-1]["cpu_seconds"])
        return Made(folder, facts(folder, made.model), start.cpu_seconds, seconds, journal)

    def lesson(self, made: Making) -> Lesson:
        """What a model learns from; pictures that several read are prepared once."""
        if self._lesson is None:
            self._lesson = lesson_for(made, self.data, self.threads)
            return self._lesson
        return self._lesson.again(made)

    def _start(self, made: Making, lesson: Lesson) -> Start:
        recipe = made.recipe
        if recipe.calibrate is None:
            return begin(made, lesson, self.watch)
        what = f"{recipe.rotate} {recipe.calibrate!r} {starting_plan(recipe, made.plan)!r} {lesson.extent}"
        name = hashlib.sha256(what.encode()).hexdigest()
        if name not in self._calibrated:
            self._calibrated[name] = begin(made, lesson, self.watch)
        return self._calibrated[name]
