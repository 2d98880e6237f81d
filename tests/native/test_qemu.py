"""Older x86 CPUs under emulation: the backend chosen there, and that it computes the same."""

from __future__ import annotations

import shutil

import pytest

from native_build import build, run

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("cpu", "isa"), [("Nehalem", "scalar"), ("Haswell", "avx2")])
def test_an_older_cpu(cpu: str, isa: str) -> None:
    qemu = shutil.which("qemu-x86_64")
    if not qemu:
        pytest.fail("needs qemu-x86_64: apt-get install qemu-user")
    # QEMU 7.2 reads whole vectors where a masked load should not, so the arrays stand without guard pages.
    sweep = [build("sweep"), "--unguarded", "--no-fork", "--isa", isa, "--cases", 1000]
    assert "all as expected" in run([qemu, "-cpu", cpu, *sweep, "products", "floats", "attention", "pool", "engine"])
