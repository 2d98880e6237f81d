"""Makes models for a comparison, and counts what each costs.

    cpu_seconds = start (rounding or calibration) + training

of all threads of the process; reading text, packing and measuring are left out, and so are evaluations during training
and learning rates that were tried. A calibration that comes from the cache counts as when it was made: each block has
kept that number. Rows that begin alike share one calibration in memory, and each is charged for it whole. What a stored
teacher answered is not shared: each run asks, and pays.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet import fsio, sources
from tercet.pipeline.distil import distil
from tercet.pipeline.folder import write
from tercet.pipeline.rotation import rotated_source
from tercet.pipeline.start import Start, begin, starting_plan
from tercet.program import Program
from tercet.progress import Progress
from tercet.recipe import Planned, Recipe
from tercet.train.journal import read_journal
from tercet.train.processes import Processes

__all__ = ["Made", "Workshop"]


@dataclass(frozen=True)
class Made:
    """A model.

    Attributes:
        folder: packed; the next model replaces it.
        start_cpu_seconds, training_cpu_seconds: what it cost.
        journal: of training; empty where there was none.
    """

    folder: Path
    start_cpu_seconds: float
    training_cpu_seconds: float = 0.0
    journal: list[dict[str, Any]] = field(default_factory=list)


class Workshop:
    """Args:
    work: folder for runs and the model; threads: of torch; step: called with (what, done, total).
    """

    def __init__(self, source: sources.Source, work: Path, threads: int | None, step: Progress) -> None:
        self.source, self.work, self.threads, self.step = source, work, threads, step
        self.program = source.model.text
        self._calibrated: dict[str, Start] = {}

    def make(self, recipe: Recipe, *, validate: bool) -> Made:
        """Makes and packs a model. Its run is removed from the disk when it has ended: it has gigabytes.

        Args:
            validate: measure the perplexity on the validation split during training.

        Raises TercetError.
        """
        source = rotated_source(self.source) if recipe.rotate else self.source
        program = source.model.text
        plan = recipe.plan(program)
        start = self._start(source, program, recipe, plan)
        folder = self.work / "model"
        if recipe.train is None:
            write(folder, source, program, recipe, plan, start.tensors, start.text, self.step)
            return Made(folder, start.cpu_seconds)
        runs = self.work / "training"
        for answers in runs.glob("*.npy"):
            answers.unlink()
        try:
            trained = distil(
                source,
                program,
                recipe,
                plan,
                start.tensors,
                runs,
                self.step,
                None,
                Processes(),
                validate=validate,
            )
        finally:
            gc.collect()  # models with hooks are cycles, and the next one would not fit beside them
        journal = read_journal(trained.folder / "journal.jsonl")
        write(folder, source, program, recipe, plan, trained.tensors, start.text, self.step)
        fsio.remove_folder(trained.folder)
        seconds = trained.teacher_cpu_seconds + float(journal[-1]["cpu_seconds"])
        return Made(folder, start.cpu_seconds, seconds, journal)

    def _start(self, source: sources.Source, program: Program, recipe: Recipe, plan: Mapping[str, Planned]) -> Start:
        if recipe.calibrate is None:
            return begin(source, program, recipe, plan, None, self.threads, self.step)
        what = f"{recipe.rotate} {recipe.calibrate!r} {starting_plan(recipe, plan)!r}"
        name = hashlib.sha256(what.encode()).hexdigest()
        if name not in self._calibrated:
            self._calibrated[name] = begin(source, program, recipe, plan, None, self.threads, self.step)
        return self._calibrated[name]
