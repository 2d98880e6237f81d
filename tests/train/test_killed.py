"""kill -9 at any moment, and inside any save: the run goes on and ends with the bits of one left in peace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("what", "kills", "seed"),
    [
        ("tiny", 4, 0),
        pytest.param("tiny", 20, 1, marks=pytest.mark.slow),
        pytest.param("hour", 20, 2, marks=pytest.mark.slow),
    ],
)
def test_killed_again_and_again(tmp_path: Path, what: str, kills: int, seed: int) -> None:
    script = Path(__file__).with_name("killed_training.py")
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path), str(kills), str(seed), what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(kills // 2)] * 2
