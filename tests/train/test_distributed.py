"""Two processes (gloo) train as one does: DDP, and FSDP2 with its weights in parts, resumed half-way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from tercet.train import load_weights
from tercet.train.journal import read_journal


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    script = Path(__file__).with_name("distributed.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return folder


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_as_one(runs: Path, kind: str) -> None:
    one, two = (read_journal(runs / name / "journal.jsonl") for name in ("one", kind))
    assert [record["step"] for record in two] == list(range(21))
    for name in ("loss", "gradient", "zeros", "flips"):
        alone, shared = ([record.get(name, 0.0) for record in records] for records in (one, two))
        assert np.allclose(alone, shared, rtol=0, atol=1e-9), name
    assert one[20]["loss"] < one[1]["loss"] - 0.1
    evaluations = [[r["evaluation"]["loss"] for r in records if "evaluation" in r] for records in (one, two)]
    assert len(evaluations[0]) == 3
    assert np.allclose(*evaluations, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("kind", "resumed", "parts"), [("ddp", 0, (1.0, 1.0)), ("fsdp", 5, (0.4, 0.6))])
def test_each_process_has_its_part(runs: Path, kind: str, resumed: int, parts: tuple[float, float]) -> None:
    for process in range(2):
        went_on_from, share, blocks, sharded = json.loads((runs / kind / f"process-{process}").read_text())
        assert went_on_from == resumed
        assert parts[0] <= share <= parts[1]
        assert (blocks, sharded) == (1, kind == "fsdp")


def test_a_checkpoint_of_parts_is_whole(runs: Path) -> None:
    trained = []
    for kind in ("one", "fsdp"):
        task = training.odd_task()
        assert load_weights(task, runs / kind) == 20
        trained.append(dict(task.named_parameters()))
    for name, value in trained[0].items():
        assert torch.allclose(value.double(), trained[1][name].double(), rtol=0, atol=1e-9), name
