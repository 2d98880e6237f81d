"""`tercet quantize` in two processes: one calibrates and packs, both distil, and it is what one process makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiny
from tercet.artifact import Artifact
from tercet.packing import PackedTensor, unpack
from tercet.tensor import TernaryTensor

RECIPE = {
    "rules": [{"quantizer": "learned"}],
    "group_size": 32,
    "calibrate": {"tokens": 512, "context": 32},
    "distil": {"teacher": "stored"},
    "train": {"steps": 6, "batch": 4, "context": 16, "lr": 1e-3, "scale_lr": 1e-3, "precision": "float32"},
}


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_make_what_one_makes(sharded: bool, tmp_path: Path) -> None:
    source = tiny.save_folder(tmp_path / "source")
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT * 60, encoding="utf-8")
    recipe = tmp_path / "recipe.json"
    fields = {**RECIPE, "calibrate": {**RECIPE["calibrate"], "text": str(text)}}
    fields["distil"] = {"teacher": "live" if sharded else "stored", "text": str(text)}
    recipe.write_text(json.dumps(fields), encoding="utf-8")
    made = [_quantize(processes, sharded, source, recipe, tmp_path) for processes in (1, 2)]
    flips = total = 0
    for name, one in made[0].items():
        two = made[1][name]
        if isinstance(one, PackedTensor) and isinstance(two, PackedTensor):
            one, two = unpack(one), unpack(two)
        if isinstance(one, TernaryTensor) and isinstance(two, TernaryTensor):
            flips, total = flips + int((one.codes != two.codes).sum()), total + one.codes.size
            np.testing.assert_allclose(one.scale, two.scale, rtol=1e-2, atol=1e-4)
    assert total > 0
    assert flips < total / 500


def _quantize(processes: int, sharded: bool, source: Path, recipe: Path, place: Path) -> dict[str, object]:
    out = place / f"out-{processes}"
    command = ["-m", "tercet", "quantize", str(source), "-o", str(out), "--recipe", str(recipe), "--eval-tokens", "0"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes > 1 else []
    environment = {
        **os.environ,
        "TERCET_CACHE": str(place / f"cache-{processes}"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    if sharded:
        environment["ACCELERATE_USE_FSDP"] = "true"
    done = subprocess.run(
        [sys.executable, *launch, *command], env=environment, capture_output=True, check=False, cwd=place
    )
    assert done.returncode == 0, done.stderr.decode()
    return dict(Artifact.open(out, check=True).tensors)
