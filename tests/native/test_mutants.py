"""Kernels, pool and engine wrong on purpose: each patch in mutants/ is applied to a copy, and the sweep must see it.

Most give wrong numbers instead of crashes. A patch that no longer applies, or does not compile, is a failure: it proves
nothing any more. So is one that hangs.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from native_build import ROOT, build, run

PATCHES = sorted((Path(__file__).parent / "mutants").glob("*.patch"))
LEAST = 20
MINUTES = 10

seen: list[str] = []


def changes(patch: str) -> list[tuple[str, str, str]]:
    """(file, old, new) of each hunk of a unified diff; line numbers count for nothing."""
    found: list[tuple[str, str, str]] = []
    file = ""
    for line in patch.splitlines(keepends=True):
        if line.startswith("+++ "):
            file = line[4:].split()[0].removeprefix("b/")
        elif line.startswith("@@"):
            found.append((file, "", ""))
        elif found and line[0] in " -+":
            name, old, new = found[-1]
            found[-1] = (name, old + line[1:] * (line[0] != "+"), new + line[1:] * (line[0] != "-"))
    return found


def mutate(source: Path, patch: Path) -> dict[Path, str]:
    """Applies the patch; returns what the files held before."""
    before: dict[Path, str] = {}
    for name, old, new in changes(patch.read_text()):
        path = source / name
        text = path.read_text()
        assert text.count(old) == 1, f"{patch.name} does not apply to {name}: {text.count(old)} places\n{old}"
        before.setdefault(path, text)
        path.write_text(text.replace(old, new))
    assert before, f"{patch.name} changes nothing"
    return before


@pytest.fixture(scope="module")
def source() -> Iterator[Path]:
    """A copy to be spoiled, built, and found right."""
    assert len(PATCHES) >= LEAST
    copy = ROOT / "build" / "mutants"
    copy.mkdir(parents=True, exist_ok=True)
    shutil.copy2(ROOT / "CMakeLists.txt", copy)
    for folder in ("native", "tests/native"):
        shutil.rmtree(copy / folder, ignore_errors=True)
        shutil.copytree(ROOT / folder, copy / folder)
    assert "all as expected" in run([build("sweep", source=copy)])
    seen.clear()
    yield copy
    print(f"\nseeded bugs seen: {len(seen)} of {len(PATCHES)}")


@pytest.mark.slow
@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_the_sweep_sees_it(source: Path, patch: Path) -> None:
    before = mutate(source, patch)
    try:
        sweep = build("sweep", source=source)
        result = subprocess.run([sweep], capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    finally:
        for path, text in before.items():
            path.write_text(text)
    assert result.returncode != 0, f"not seen: {patch.read_text()}"
    seen.append(patch.stem)
    print(f"\n{patch.stem}: {result.stderr.strip()}")
