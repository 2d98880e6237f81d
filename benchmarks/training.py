"""What training costs on SmolLM2-135M: a QAT step beside a plain fine-tuning step, and each stage's peak memory.

    python benchmarks/training.py [--rounds N]

Step: cross-entropy, no teacher; model, batch, optimizer, precision the same; they take turns; medians.
Memory: VmHWM of a process of its own that does the first steps of a stage, weights and data included.
Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from tercet import data, sources
from tercet.calibrate import calibrate, rounded
from tercet.data import windows
from tercet.evaluate.machine import machine
from tercet.modules.module import ProgramModule
from tercet.modules.precision import uses_bfloat16
from tercet.pipeline.student import build_student
from tercet.recipe import Distil, Recipe, Train
from tercet.recipe.settings import Activations, Reconstruct
from tercet.runtime import Tokenizer
from tercet.train import TextTask
from tercet.train.parameters import optimizer_of, trained

RESULTS = Path(__file__).parent / "results" / "training.json"
CONTEXT = 256
BATCHES = (2, 8)
BLOCKS = 2  # of the block-wise stage, which then is the same for every further block
STAGES = ("plain", "qat", "distil", "blockwise")
RECIPE = "quick"


def student(source: sources.Source, activations: Activations) -> ProgramModule:
    plan = Recipe.load(RECIPE).plan(source.model)
    tensors = source.tensors()
    start = {name: rounded(np.array(tensors[name]), planned) for name, planned in plan.items()}
    return build_student(source.model, tensors, plan, start, activations)


def plain(source: sources.Source) -> ProgramModule:
    """The float model; its embedding is not trained either."""
    module = ProgramModule(source.model, source.tensors())
    for name, weight in source.model.weights.items():
        if weight.role == "embedding":
            module.get_parameter(name).requires_grad_(False)
    return module


class Stepper:
    """One training step after another of a model on random tokens."""

    def __init__(self, model: ProgramModule, teacher: ProgramModule | None = None) -> None:
        self.task = TextTask(model, teacher, Distil(kl=0, ce=1) if teacher is None else Distil())
        self.optimizer = optimizer_of(self.task, Train(steps=1))
        self.bfloat16 = uses_bfloat16("auto", torch.device("cpu"))

    def __call__(self, ids: torch.Tensor) -> float:
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            loss = self.task({"ids": ids})["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained(self.task).values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - begin


def tokens(source: sources.Source) -> np.ndarray:
    text = data.default_text("train")
    assert text is not None, "the default text cannot be had"
    return windows(Tokenizer.open(source.folder).encode(text), CONTEXT, 1 << 16)


def steps(source: sources.Source, rounds: int) -> list[dict[str, Any]]:
    """A row for each batch: median seconds, and the ratio to the plain step."""
    runs = {"plain": Stepper(plain(source)), "qat": Stepper(student(source, "a16"))}
    runs["qat, int8 activations"] = Stepper(student(source, "a8"))
    cut, rows = torch.from_numpy(tokens(source)), []
    for batch in BATCHES:
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for index in range(rounds + 1):
            for name, run in runs.items():
                seconds = run(cut[index * batch : (index + 1) * batch])
                if index:  # the first round warms up
                    taken[name].append(seconds)
        medians = {name: median(times) for name, times in taken.items()}
        ratios = {name: round(value / medians["plain"], 3) for name, value in medians.items()}
        rows.append({"batch": batch, "context": CONTEXT, "seconds": medians, "ratio": ratios, "all": taken})
        print(rows[-1]["batch"], medians, ratios, file=sys.stderr, flush=True)
    return rows


def stage(name: str, source: sources.Source) -> None:
    """The first steps of a stage, in this process."""
    cut = tokens(source)
    if name == "blockwise":
        recipe = Recipe.load(RECIPE)
        program = source.model.text
        assert recipe.calibrate is not None
        settings = recipe.calibrate.model_copy(update={"reconstruct": Reconstruct(epochs=1)})
        context = windows(cut.reshape(-1), settings.context, settings.tokens)

        def stop(done: int, _total: int) -> None:
            if done == BLOCKS:
                raise StopIteration

        try:
            calibrate(program, source.tensors(), recipe.plan(source.model), context, settings, progress=stop)
        except StopIteration:
            return
    model = plain(source) if name == "plain" else student(source, "a8")
    run = Stepper(model, ProgramModule(source.model, source.tensors()) if name == "distil" else None)
    for index in range(3):
        run(torch.from_numpy(cut[2 * index : 2 * index + 2]))


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = sources.resolve("smollm2")
    if options.stage:
        stage(options.stage, source)
        print(peak_mb())
        return
    memory = {}
    for name in STAGES:
        done = subprocess.run([sys.executable, __file__, "--stage", name], check=True, capture_output=True, text=True)
        memory[name] = float(done.stdout.split()[-1])
        print(name, memory[name], "MB", file=sys.stderr, flush=True)
    result = {
        "command": f"python benchmarks/training.py --rounds {options.rounds}",
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "bfloat16": uses_bfloat16("auto", torch.device("cpu")),
        "steps": steps(source, options.rounds),
        "peak_memory_mb": memory,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
