"""Ctrl-C from the first moment of the `tercet` command: one line on stderr and exit code 130, never a traceback.

While modules are imported, at the start or when a command first needs them, the process ends at once: nothing has
begun, and an exception in the middle of an import may be swallowed or turned into another one. At any other moment
Ctrl-C is Python's KeyboardInterrupt, so that what is half done is cleaned up and the command says what was kept.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

__all__ = ["EXIT", "arm", "disarm"]

EXIT = 130  # 128 + SIGINT, as shells have it
IMPORTS = "<frozen importlib._bootstrap>"
LINE = b"tercet: interrupted; nothing was changed\n"


def arm() -> None:
    """From now on; where SIGINT is ignored, as in a shell's background jobs, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted)


def disarm() -> None:
    """For the last moments of a process, in which Python tidies up and could only say where."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(_number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORTS:
            os.write(2, LINE)
            os._exit(EXIT)
        frame = frame.f_back
    raise KeyboardInterrupt
