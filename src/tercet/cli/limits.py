"""Memory for training: kept by the process once it has it, in huge pages.

A training step asks for some gigabytes in large blocks and gives them back, every time. glibc maps such blocks anew, in
pages of 4 KiB that the kernel has to clear: a quarter of a step's time on a CPU. glibc can do otherwise, but reads that
only when a process begins; so the command begins once more, before it has done anything.
"""

from __future__ import annotations

import os
import signal
import sys

__all__ = ["keep_memory"]

VARIABLE = "GLIBC_TUNABLES"
KEPT = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"


def keep_memory() -> None:
    """Goes on as a process whose malloc keeps what it has, on Linux; a person's own choice is left alone.

    Ctrl-C waits until the new process comes here, and can take care of it (`tercet.interrupt`).
    """
    chosen = os.environ.get(VARIABLE)
    if chosen == KEPT:
        del os.environ[VARIABLE]  # processes that measure memory are not to inherit it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    elif chosen is None and sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, VARIABLE: KEPT})
