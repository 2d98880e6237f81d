"""The native sweep: every backend of this CPU against plain loops, the thread pool and the engine."""

from __future__ import annotations

import pytest

from native_build import build, run


def test_quick_sweep() -> None:
    assert "all as expected" in run([build("sweep")])


@pytest.mark.slow
def test_a_million_cases_and_a_hundred_in_each_cell() -> None:
    assert "all as expected" in run([build("sweep"), "--cases", 1_000_000, "--least", 100, "--table"])
