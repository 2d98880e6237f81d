"""Trains the tiny task, is killed (SIGKILL) again and again, goes on, and compares the bits with a run left in peace.

    python killed_training.py FOLDER KILLS SEED

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

import torch

import training
from faults import CALLS
from tercet import fsio
from tercet.train import train
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


def run(folder: Path, steps: int, anywhere: int = 0, in_a_save: int = 0) -> None:
    """In this process: trains on; dies at the n-th event, or at the n-th call of the saves, where that is not 0."""
    task = training.task()
    mortal = Mortal(anywhere)
    task.register_forward_hook(mortal)
    task.student.model.embed_tokens.register_forward_hook(mortal)
    task.student.model.norm.weight.register_hook(mortal)
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
    settings = training.settings(steps=steps, checkpoint_every=3)
    train(task, training.windows(), settings, folder, evaluate=lambda _: {"draw": float(torch.rand(1))})


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


def main(folder: Path, kills: int, seed: int) -> None:
    draw, done = random.Random(seed), {"anywhere": 0, "in a save": 0}
    steps = 4 * kills
    assert in_a_child(folder / "peace", steps) == 0
    while sum(done.values()) < kills:
        if done["in a save"] < kills // 2 and draw.random() < 0.5:
            kind, options = "in a save", {"in_a_save": draw.randint(1, CALLS_A_SAVE)}
        else:
            kind, options = "anywhere", {"anywhere": draw.randint(1, 3 * EVENTS)}
        if done[kind] < kills - kills // 2:
            code = in_a_child(folder / "war", steps, **options)
            assert code == -signal.SIGKILL, f"{kind} {options}: exit code {code}"
            done[kind] += 1
    assert in_a_child(folder / "war", steps) == 0
    peace, war = (training.weights(folder / name) for name in ("peace", "war"))
    different = [name for name in peace if peace[name] != war[name]]
    assert not different, different
    left = sorted(path.name for path in (folder / "war").rglob("*") if path.name.startswith("."))
    assert not left, left
    print(*done.values())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
