"""Builds the native test harness (tests/native) with CMake and runs it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
SWEEP = "tests/native/tercet_sweep"


def build(name: str, *options: str, source: Path = ROOT) -> Path:
    """The harness in source/build/name, up to date. Raises AssertionError with the compiler's words where it fails."""
    folder = source / "build" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the environment's own cmake
    cmake = shutil.which("cmake", path=path)
    assert cmake, "cmake is missing; pip install cmake"
    ninja = ["-G", "Ninja"] if shutil.which("ninja", path=path) else []
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "CMakeCache.txt").exists():
            run([cmake, *ninja, "-S", source, "-B", folder, "-DTERCET_TESTS=ON", *options], PATH=path)
        run([cmake, "--build", folder, "--target", "tercet_sweep", "--parallel", os.cpu_count() or 1], PATH=path)
    return folder / SWEEP


def run(command: Sequence[object], **environment: str) -> str:
    """Standard output, also printed; AssertionError with all it said where the command fails."""
    words = [str(word) for word in command]
    result = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, errors="replace", check=False
    )
    print(result.stdout)
    assert result.returncode == 0, f"{' '.join(words)} ended with {result.returncode}\n{result.stdout}{result.stderr}"
    return result.stdout
