"""Ctrl-C, and the signal by which schedulers ask a job to end: the step is finished and saved first."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Interrupt"]

log = logging.getLogger("tercet.train")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While it is open, the first signal sets `asked`; a second Ctrl-C raises KeyboardInterrupt at once.

    Outside of the main thread, where Python gives signals to nobody, it does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        log.warning("stopping as soon as this step is done and saved; once more stops at once")
