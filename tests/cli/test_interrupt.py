"""Ctrl-C while a model is calibrated: one line, exit code 130, nothing half-written; the same command then goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# The command, in a process of its own that gets a real SIGINT when its first block is calibrated, or never.
SCRIPT = """
import contextlib, os, signal, sys
from tercet.cli import main, make

@contextlib.contextmanager
def watched():
    def progress(what, done, total):
        print(f"progress {what} {done}/{total}", file=sys.stderr)
        if what == os.environ.get("INTERRUPT") and done == 1:
            os.kill(os.getpid(), signal.SIGINT)
    yield progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
make.progress_bar = watched
main()
"""


@pytest.fixture
def run(source: Path, text: Path, tmp_path: Path, environment: dict[str, str]):
    def start(out: str, interrupt: str = "", cache: str = "cache") -> subprocess.CompletedProcess[str]:
        options = ["--text", str(text), "--tokens", "512", "--eval-tokens", "0", "--threads", "1"]
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, "quantize", str(source), "-o", str(tmp_path / out), *options],
            env={**environment, "INTERRUPT": interrupt, "TERCET_CACHE": str(tmp_path / cache)},
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def test_interrupted_twice_and_run_again(run, tmp_path: Path) -> None:
    for stage in ("calibrate blocks", "pack"):
        stopped = run("out", interrupt=stage)
        assert stopped.returncode == 130, stopped.stderr
        said = [line for line in stopped.stderr.splitlines() if not line.startswith("progress ")]
        assert len(said) == 1
        assert "run the same command again" in said[0]
        assert stopped.stdout == ""
        assert [file.name for file in tmp_path.iterdir()] == ["cache"]

    again, whole = run("out"), run("whole", cache="other")
    assert (again.returncode, whole.returncode) == (0, 0), again.stderr + whole.stderr
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cache", "other", "out", "whole"]
