"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """The `Progress` of a caller who wants none."""
