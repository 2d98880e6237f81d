"""Standard streams as they may be: closed, full, or with a reader that has gone away."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator

from tercet.errors import StorageError

__all__ = ["lenient", "open_all", "result_written", "silence"]


def open_all() -> None:
    """Opens /dev/null on a standard stream that is closed, lest the next file that is opened gets its number.

    Raises StorageError where it is stdout, on which a result could only be lost.
    """
    for number in range(3):
        if not _is_open(number):
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w")  # noqa: SIM115
        raise StorageError("standard output is closed, the result would be lost; send it to a file or to /dev/null")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def lenient() -> None:
    """Text that cannot be read or shown in the terminal's encoding is no reason to stop."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextlib.contextmanager
def result_written() -> Iterator[None]:
    """Around what writes to stdout. Raises StorageError where it is full; a reader that went away ends the command as
    a BrokenPipeError."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        raise StorageError(f"cannot write to standard output: {error.strerror}; the result was not printed") from None


def silence() -> None:
    """Whatever stdout still holds goes nowhere, so that Python does not try it once more when the process ends."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
