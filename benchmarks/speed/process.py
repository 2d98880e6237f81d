"""A participant's own process: which CPUs its threads run on, and how much memory it took. Needs no package."""

from __future__ import annotations

import os
import resource
from pathlib import Path

__all__ = ["peak_mb", "pin", "unpin"]

CPUS = os.sched_getaffinity(0)


def pin(threads: int) -> None:
    """The main thread to the first CPU, the rest to the others in turn; a single thread has the first for itself."""
    cpus = sorted(CPUS)
    others = [int(task.name) for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    os.sched_setaffinity(os.getpid(), {cpus[0]})
    for i, task in enumerate(others):
        rest = cpus[1:threads] or cpus
        try:
            os.sched_setaffinity(task, {rest[i % len(rest)]})
        except ProcessLookupError:
            continue


def peak_mb() -> float:
    """The most this process has had in memory, shared pages included, in MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def unpin() -> None:
    """Threads made from now on may run anywhere again."""
    os.sched_setaffinity(0, CPUS)
