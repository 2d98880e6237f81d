"""An operating system that fails: for whatever goes to disk through `tercet.fsio`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tercet import fsio

__all__ = ["CALLS", "FaultyOs", "faults"]

CALLS = ("open", "write", "fsync", "rename", "mkdir")


class FaultyOs:
    """The os module, whose n-th writing call fails."""

    def __init__(self, fail_at: int, failure: BaseException) -> None:
        self.calls, self.fail_at, self.failure = 0, fail_at, failure

    def __getattr__(self, name: str) -> Any:
        # A test that pulls no plug need not wait for the disk.
        function = (lambda _: None) if name == "fsync" else getattr(os, name)
        return self.counted(function) if name in CALLS else function

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.fail_at:
                raise self.failure
            return function(*args, **options)

        return call


def faults(monkeypatch: pytest.MonkeyPatch, exchange: bool, failure: BaseException) -> Iterator[FaultyOs]:
    """Faulty systems, one for each call of what the caller does, until it meets no fault."""
    real = fsio._exchange
    for fail_at in range(1, 1000):
        faulty = FaultyOs(fail_at, failure)
        with monkeypatch.context() as patched:
            patched.setattr(fsio, "os", faulty)
            patched.setattr(fsio, "_exchange", faulty.counted(real if exchange else lambda *_: False))
            yield faulty
        if faulty.calls < fail_at:
            assert fail_at > 4
            return
