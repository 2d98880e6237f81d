"""The aarch64 build, cross compiled and emulated: exact with and without dot product, and the same bits as here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from native_build import ROOT, build, run

TOOLS = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"}
NO_FORK = "--no-fork"  # QEMU 7.2 aborts when a forked child starts a thread
CPUS = {"cortex-a76": "neon", "cortex-a53": "scalar"}  # with dot product, without

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cross() -> Path:
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        pytest.fail(f"needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
    return build("aarch64", f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'tests/native/aarch64.cmake'}")


@pytest.mark.parametrize("cpu", CPUS)
def test_every_part_of_the_sweep_passes(cross: Path, cpu: str) -> None:
    told = run(["qemu-aarch64", "-cpu", cpu, cross, NO_FORK, "--isa", CPUS[cpu], "--cases", 4000])
    assert f"default {CPUS[cpu]}\n" in told
    assert "all as expected" in told


def test_neon_is_refused_without_dot_product(cross: Path) -> None:
    environment = {**os.environ, "TERCET_ISA": "neon"}
    command = ["qemu-aarch64", "-cpu", "cortex-a53", cross, "digest"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "this CPU or build lacks 'neon'; this machine runs scalar" in done.stderr


def test_results_are_those_of_this_machine(cross: Path) -> None:
    """A digest each of products, float operations, attention, sampling and a model's logits, on every backend."""
    here = _digests([build("sweep")])
    assert len(here) >= 5
    for cpu in CPUS:
        assert _digests(["qemu-aarch64", "-cpu", cpu, cross]) == here


def _digests(sweep: list[object]) -> list[str]:
    return [line for line in run([*sweep, NO_FORK, "digest", "engine"]).splitlines() if line.startswith("digest of")]


def test_no_function_is_shared_between_instruction_sets(cross: Path) -> None:
    """The linker keeps one of several inline functions of a name; one compiled for a newer CPU would end an older."""
    assert _instruction_sets(cross, "aarch64-linux-gnu-nm") == {"neon"}
    assert _instruction_sets(build("sweep"), "nm") >= {"avx2", "avx512vnni"}


def _instruction_sets(sweep: Path, nm: str) -> set[str]:
    """The folders of native/ with flags of their own; fails where two objects define one name and differ in flags."""
    native = sweep.parents[2] / "CMakeFiles/tercet_native.dir/native"
    owners: dict[str, set[str]] = {}
    for path in native.rglob("*.o"):
        owner = "" if path.parent.name in ("native", "engine", "scalar") else path.parent.name
        for line in run([nm, "--defined-only", "--extern-only", path]).splitlines():
            owners.setdefault(line.split()[-1], set()).add(owner)
    assert not {name: found for name, found in owners.items() if len(found) > 1}
    return {owner for found in owners.values() for owner in found} - {""}
