"""What one training step of SmolLM2-135M costs: forward, backward and optimizer, as the recipe quick has them.

    python benchmarks/step.py [--rounds N] [--steps N] [NAME=PYTHON[:SCRIPT] ...]

Every linear of a block has the recipe's quantizer, rotated and calibrated by rounding; the loss is the divergence from
a teacher whose last hidden states are stored (random here: what they are does not change the time). Windows are of 256
tokens, 2 or 8 a batch, products in the precision that the recipe's "auto" is on this machine.

Each measurement is a process of its own: one step to warm up, then those timed; its peak memory is the process's. With
several interpreters, such as those of two checkouts, they take turns in every round. SCRIPT is this file if not given;
another one has to answer `--worker BATCH --steps N` as it does. Prints JSON: for each name and batch the median seconds
of a step, tokens a second, and the largest peak. On a busy machine CPU seconds of one thread (OMP_NUM_THREADS=1) say
more.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

CONTEXT = 256
BATCHES = (2, 8)
RECIPE = "quick"


def task(recipe: Any) -> Any:
    """Student and losses, ready to be trained: all that is asked of the package."""
    import numpy as np

    from tercet import sources
    from tercet.calibrate import rounded
    from tercet.modules.module import ProgramModule
    from tercet.pipeline.rotation import rotated_source
    from tercet.pipeline.student import build_student
    from tercet.train import TextTask
    from tercet.train.teacher import HeadOnly

    source = rotated_source(sources.resolve("smollm2"))
    plan, tensors = recipe.plan(source.model), source.tensors()
    start = {name: rounded(np.array(tensors[name]), planned) for name, planned in plan.items()}
    student = build_student(source.model, tensors, plan, start, recipe.distil.activations)
    return TextTask(student, HeadOnly(ProgramModule(source.model, tensors)), recipe.distil)


def worker(batch: int, steps: int) -> dict[str, Any]:
    """Seconds and CPU seconds of each step after the first, and this process's peak in MB of 10^6 bytes."""
    import torch

    from tercet.modules.precision import uses_bfloat16
    from tercet.recipe import Recipe
    from tercet.train.parameters import optimizer_of, trained

    recipe = Recipe.load(RECIPE)
    trainee = task(recipe)
    trainee.train()
    optimizer, seconds, cpu = optimizer_of(trainee, recipe.train), list[float](), list[float]()
    bfloat16 = uses_bfloat16(recipe.train.precision, torch.device("cpu"))
    vocabulary, width = trainee.teacher.weight.shape
    torch.manual_seed(0)
    for _ in range(steps + 1):
        ids = torch.randint(vocabulary, (batch, CONTEXT))
        rows = {"ids": ids, "teacher": torch.randn(batch, CONTEXT, width).half()}
        begin, spent = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = trainee(rows)["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained(trainee).values(), recipe.train.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - spent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    facts = {"peak_mb": peak, "bfloat16": bfloat16, "threads": torch.get_num_threads()}
    return {"seconds": seconds[1:], "cpu_seconds": cpu[1:], **facts}


def asked(participant: str, batch: int, steps: int) -> dict[str, Any]:
    python, _, script = participant.partition(":")
    command = [python, script or __file__, "--worker", str(batch), "--steps", str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measured(participants: dict[str, str], rounds: int, steps: int) -> list[dict[str, Any]]:
    """A row for each batch and name."""
    rows = []
    for batch in BATCHES:
        answers: dict[str, list[dict[str, Any]]] = {name: [] for name in participants}
        for _ in range(rounds):
            for name, participant in participants.items():
                answers[name].append(asked(participant, batch, steps))
        for name, found in answers.items():
            row: dict[str, Any] = {"name": name, "batch": batch, "context": CONTEXT}
            for key in ("seconds", "cpu_seconds"):
                row[key] = round(median(second for answer in found for second in answer[key]), 4)
            row["tokens_per_s"] = round(batch * CONTEXT / row["seconds"], 1)
            row["peak_mb"] = round(max(answer["peak_mb"] for answer in found), 1)
            rows.append({**row, "bfloat16": found[0]["bfloat16"], "threads": found[0]["threads"]})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("participants", nargs="*", default=[f"here={sys.executable}"], metavar="NAME=PYTHON[:SCRIPT]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker, options.steps)))
        return
    participants = dict(participant.split("=", 1) for participant in options.participants)
    print(json.dumps(measured(participants, options.rounds, options.steps), indent=1))


if __name__ == "__main__":
    main()
