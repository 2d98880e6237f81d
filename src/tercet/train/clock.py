"""How long a run takes: wall clock and CPU time, over all its calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Clock"]


class Clock:
    """Attributes: seconds, cpu_seconds (of all threads of this process), up to the last `lap`."""

    def __init__(self, seconds: float = 0.0, cpu_seconds: float = 0.0) -> None:
        self.seconds, self.cpu_seconds = seconds, cpu_seconds
        self._mark()

    def lap(self) -> None:
        self.seconds += time.perf_counter() - self._wall
        self.cpu_seconds += time.process_time() - self._cpu
        self._mark()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.lap()
        try:
            yield
        finally:
            self._mark()

    def _mark(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
