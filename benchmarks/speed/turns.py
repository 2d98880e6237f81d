"""Participants and rounds: each participant is a worker process, and they take turns.

Whose turn it is not is stopped, so that nobody's spinning threads take another's time; between two turns the machine
rests a moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

REST = 0.03  # seconds
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # huge pages for whoever asks malloc
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_DYNAMIC": "false",
}


class Failed(Exception):
    """A worker could not do what it was asked to."""


class Worker:
    """A participant's process; `call` runs one of its methods there. One that crashed starts anew at the next call."""

    def __init__(self, python: Path | str, *arguments: str) -> None:
        self.name = " ".join(arguments)
        self.command = [str(python), "-m", "speed.worker", *arguments]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("SPEED_VERBOSE") else subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
        )

    def call(self, name: str, **arguments: Any) -> Any:
        """What the method returns. Raises Failed."""
        if self.process.poll() is not None:
            self.process = self._start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps({"call": name, "arguments": arguments}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise Failed(f"{self.name}: crashed in {name} (exit code {self.process.wait()})")
        self.process.send_signal(signal.SIGSTOP)  # threads that wait by spinning would take the next one's cores
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {name}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        """Ends the process."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def rounds(turns: Mapping[str, Callable[[], float]], count: int) -> dict[str, list[float]]:
    """Everyone's readings, `count` of each, taken in turn; who fails is left out and named on stderr."""
    found: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(count):
        for name in list(found) if number % 2 == 0 else list(reversed(found)):
            time.sleep(REST)
            try:
                found[name].append(turns[name]())
            except Failed as error:
                print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
                del found[name]
    return found


def median(values: list[float]) -> float:
    return float(np.median(values))


def quartiles(values: list[float]) -> list[float]:
    return [float(value) for value in np.percentile(values, (25, 75))]
