"""Locks that a fork does not leave locked for ever in the child."""

from __future__ import annotations

import os
import threading
import weakref

__all__ = ["ForkLock"]


class ForkLock:
    """A mutex for `with`. `os.fork` waits until nobody holds one, so the child finds all of them free."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _living.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_living: weakref.WeakSet[ForkLock] = weakref.WeakSet()
_held: list[ForkLock] = []


def _hold() -> None:
    _held[:] = _living
    for lock in _held:
        lock.__enter__()


def _release() -> None:
    for lock in _held:
        lock.__exit__()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_release)
