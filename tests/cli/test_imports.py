"""The runtime, everything below it, and what commands do with packed models import no torch: a machine that only runs
models needs none.
"""

import subprocess
import sys

import pytest

CHECK = "import sys, importlib; importlib.import_module(sys.argv[1]); print([m for m in HEAVY if m in sys.modules])"
HEAVY = ["accelerate", "gguf", "matplotlib", "torch", "transformers"]


MODULES = [
    "tercet", "tercet.cli", "tercet.families", "tercet.program.interpreter", "tercet.runtime", "tercet.search",
    "tercet.evaluate.measure", "tercet.search.commands",
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_import_brings_no_heavy_package(module: str) -> None:
    code = CHECK.replace("HEAVY", repr(HEAVY))
    result = subprocess.run([sys.executable, "-c", code, module], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "[]", result.stderr


def test_every_exported_name_exists() -> None:
    import tercet

    assert tercet.__all__ == sorted(tercet.__all__)
    for name in tercet.__all__:
        assert getattr(tercet, name).__name__ == name
