"""Trains, is killed (SIGKILL) again and again, goes on, and compares the bits with a run left in peace.

    python killed_training.py FOLDER KILLS SEED tiny|hour

What is trained is the tiny task, or a short copy of the recipe hour: fewer steps, on one block of SmolLM2.

Half of the kills come inside a save, at a random one of its system calls; the others somewhere in a random forward or
backward pass, update, or line of the journal. The parent only forks, so each child begins as a fresh process would.
Prints how many kills of each kind there were; fails if a run could not go on, or ended with other bits.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import smollm2
import training
from faults import CALLS
from tercet import fsio, sources
from tercet.calibrate import rounded
from tercet.pipeline.distil import distil
from tercet.pipeline.lessons import Data, lesson_for
from tercet.pipeline.making import Watch, making
from tercet.recipe import Calibrate, Recipe
from tercet.train import TextTask, train
from tercet.train.checkpoint import Checkpoints

EVENTS = 9  # a step has about: 2 forward and 2 backward passes, an update, calls for the journal
CALLS_A_SAVE = 60


class Mortal:
    """Counts down at what it is asked to count, and then kills the process."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalOs:
    """The os module, each of whose writing calls counts, before and after it is done."""

    def __init__(self, mortal: Mortal) -> None:
        self.mortal = mortal

    def __getattr__(self, name: str) -> Any:
        function = (lambda _: None) if name == "fsync" else getattr(os, name)
        return self.counted(function) if name in CALLS else function

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.mortal()
            result = function(*args, **options)
            self.mortal()
            return result

        return call


def tiny_run(folder: Path, steps: int, mortal: Mortal) -> None:
    task = training.task()
    task.student.get_submodule("model.layers.0").register_forward_hook(mortal)
    task.student.weight("model.norm.weight").register_hook(mortal)
    task.forward = counted(task.forward, mortal)  # type: ignore[method-assign]
    settings = training.settings(steps=steps, checkpoint_every=3)
    train(task, training.windows(), settings, folder, evaluate=lambda _: {"draw": float(torch.rand(1))})


def hour_run(folder: Path, steps: int, mortal: Mortal) -> None:
    """Calibration left out: its blocks are rounded, which is a start like another."""
    source, recipe = sources.resolve(str(folder.parent / "source")), Recipe.load("hour")
    assert recipe.distil is not None
    assert recipe.train is not None
    short = {"steps": steps, "context": 32, "checkpoint_every": 3}
    parts = {
        "calibrate": Calibrate(),
        "distil": recipe.distil.model_copy(update={"text": str(folder.parent / "text.txt")}),
        "train": recipe.train.model_copy(update=short),
    }
    made = making(source, recipe.model_copy(update=parts))
    start = {name: rounded(np.array(made.source.tensors()[name]), planned) for name, planned in made.plan.items()}
    TextTask.forward = counted(TextTask.forward, mortal)  # type: ignore[method-assign]
    distil(made, lesson_for(made, Data(), None), start, folder, Watch(), validate=False)


RUNS = {"tiny": tiny_run, "hour": hour_run}


def run(what: str, folder: Path, steps: int, anywhere: int = 0, in_a_save: int = 0) -> None:
    """In this process: trains on; dies at the n-th event, or at the n-th call of the saves, where that is not 0."""
    mortal = Mortal(anywhere)
    if anywhere:
        fsio.os = MortalOs(mortal)  # type: ignore[assignment]
        torch.optim.Optimizer.step = counted(torch.optim.Optimizer.step, mortal)
    if in_a_save:
        save = Checkpoints.save

        def armed(*args: Any) -> Path:
            fsio.os = MortalOs(deadly)  # type: ignore[assignment]
            try:
                return save(*args)
            finally:
                fsio.os = os

        deadly = Mortal(in_a_save)
        Checkpoints.save = armed  # type: ignore[method-assign]
    RUNS[what](folder, steps, mortal)


def counted(function: Callable[..., Any], mortal: Mortal) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        mortal()
        return function(*args, **options)

    return call


def in_a_child(*args: Any, **options: Any) -> int:
    """The exit code of a child that runs; -9 where it was killed."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(*args, **options)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path, kills: int, seed: int, what: str) -> None:
    if what == "hour":
        smollm2.truncated(sources.resolve("smollm2"), folder / "source", 1)
        (folder / "text.txt").write_text(smollm2.text(0)[:100000], encoding="utf-8")
    draw, done = random.Random(seed), {"anywhere": 0, "in a save": 0}
    steps = 4 * kills
    assert in_a_child(what, folder / "peace", steps) == 0
    while sum(done.values()) < kills:
        if done["in a save"] < kills // 2 and draw.random() < 0.5:
            kind, options = "in a save", {"in_a_save": draw.randint(1, CALLS_A_SAVE)}
        else:
            kind, options = "anywhere", {"anywhere": draw.randint(1, 3 * EVENTS)}
        if done[kind] < kills - kills // 2:
            code = in_a_child(what, folder / "war", steps, **options)
            assert code == -signal.SIGKILL, f"{kind} {options}: exit code {code}"
            done[kind] += 1
    assert in_a_child(what, folder / "war", steps) == 0
    peace, war = (training.weights(_run_folder(folder / name)) for name in ("peace", "war"))
    different = [name for name in peace if peace[name] != war[name]]
    assert not different, different
    left = sorted(path.name for path in (folder / "war").rglob("*") if path.name.startswith("."))
    assert not left, left
    print(*done.values())


def _run_folder(folder: Path) -> Path:
    """Where the checkpoints are."""
    return next(folder.rglob("checkpoints")).parent


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
