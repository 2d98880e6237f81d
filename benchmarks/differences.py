"""Rows of a comparison written as differences from one recipe."""

from __future__ import annotations

from typing import Any

__all__ = ["merged"]


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`other` laid over `one`, mapping by mapping; None takes a mapping away."""
    laid = dict(one)
    for name, value in other.items():
        below = laid.get(name)
        laid[name] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return laid
