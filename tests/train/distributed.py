"""The tiny task in float64 on one process, and on two that share it by DDP or FSDP2 over gloo.

    python distributed.py FOLDER

Writes FOLDER/{one,ddp,fsdp}: runs of 20 steps, the last of which was stopped after 10 and went on from 5. The two
processes are forked from this one, as torchrun would start them, but for the seconds that imports take.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

import training
from tercet.modules.module import Block
from tercet.train import train

STEPS = 20


class Stop(Exception):
    """In place of a kill."""


def run(folder: Path, stop_at: int = -1) -> None:
    """Stops, as if it were killed, in the evaluation after step `stop_at`."""
    task = training.odd_task()
    windows = torch.from_numpy(training.windows(2, seed=9))
    before = [parameter.shape for parameter in task.parameters()]
    evaluations = iter((0, 10, 20))

    def evaluate(model: Any) -> dict[str, float]:
        if next(evaluations) == stop_at:
            raise Stop
        losses: dict[str, Tensor] = model({"ids": windows})
        return {"loss": float(losses["loss"])}

    rates = {"lr": 1e-3, "scale_lr": 1e-4, "norm_lr": 1e-3}
    settings = training.settings(steps=STEPS, checkpoint_every=5, evaluate_every=10, **rates)
    try:
        result = train(task, training.windows(), settings, folder, evaluate=evaluate)
    except Stop:
        return
    own = [parameter.to_local() if result.sharded else parameter for parameter in task.parameters()]
    parts = sum(part.numel() for part in own) / sum(shape.numel() for shape in before)
    blocks = [module for module in task.modules() if isinstance(module, Block)]
    sharded = all(isinstance(block, FSDPModule) for block in blocks) and all(
        isinstance(parameter, DTensor) for block in blocks for parameter in block.parameters()
    )
    found = [result.resumed, parts, len(blocks), sharded]
    (folder / f"process-{os.environ.get('RANK', 0)}").write_text(json.dumps(found))


def together(work: Callable[[], None], environment: dict[str, str]) -> None:
    """Runs it in two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in ranks.items()})
            os.environ.update({"MASTER_ADDR": "127.0.0.1", **environment})
            code = 1
            try:
                work()
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0, 0], codes


def main(folder: Path) -> None:
    if os.fork() == 0:
        run(folder / "one")
        os._exit(0)
    os.wait()
    together(lambda: run(folder / "ddp"), {})
    sharded = {"ACCELERATE_USE_FSDP": "true"}
    together(lambda: run(folder / "fsdp", stop_at=10), sharded)
    together(lambda: run(folder / "fsdp"), sharded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
