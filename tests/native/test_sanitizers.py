"""The sweep under the address, undefined behaviour and thread sanitizers; the first error ends it."""

from __future__ import annotations

import pytest

from native_build import build, run

pytestmark = pytest.mark.slow


def test_address_and_undefined_behaviour() -> None:
    sweep = build("address", "-DTERCET_SANITIZE=address")
    assert "all as expected" in run([sweep], UBSAN_OPTIONS="print_stacktrace=1")


def test_threads() -> None:
    sweep = build("thread", "-DTERCET_SANITIZE=thread")
    # A child of a program with threads starts threads of its own: what the pool promises, and TSan forbids by default.
    assert "all as expected" in run([sweep, "pool", "engine"], TSAN_OPTIONS="die_after_fork=0")
