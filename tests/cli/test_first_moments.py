"""The command from its first moment: Ctrl-C, and standard streams that are closed or full."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tercet import interrupt

# Ctrl-C at the moment when a module is looked for.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored

class Finder:
    def find_spec(self, name, *_):
        if name == os.environ["MODULE"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from tercet.__main__ import main
main()
"""


def run(code: str, *arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if shell:
        command = ["sh", "-c", f'exec "$@" {shell}', "sh", *command]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("module", ["tercet.cli", "typer", "tercet.evaluate.machine", "torch"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, tmp_path: Path) -> None:
    arguments = ("info",) if module != "torch" else ("quantize", tmp_path, "-o", tmp_path / "out")
    stopped = run(INTERRUPTED, *arguments, MODULE=module)
    assert stopped.returncode == interrupt.EXIT
    assert (stopped.stdout, stopped.stderr) == ("", "tercet: interrupted; nothing was changed\n")


COMMAND = "from tercet.__main__ import main; main()"


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        (">/dev/full", "cannot write to standard output: No space left on device"),
        (">&-", "standard output is closed"),
    ],
)
@pytest.mark.parametrize("arguments", [("info", "--json"), ("--version",), ("--help",)])
def test_a_result_that_cannot_be_printed_is_one_line(shell: str, message: str, arguments: tuple[str, ...]) -> None:
    done = run(COMMAND, *arguments, shell=shell)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tercet: {message}")


def test_an_error_never_goes_to_stdout() -> None:
    done = run(COMMAND, "inspect", "nope", shell="2>&-")
    assert (done.returncode, done.stdout) == (1, "")


def test_what_is_generated_onto_a_full_disk_is_one_line(packed: Path) -> None:
    done = run(COMMAND, "generate", packed, "the", "--max-tokens", 2, shell=">/dev/full")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "No space left" in line


def test_a_reader_that_goes_away_is_no_error_to_tell() -> None:
    done = run(COMMAND, "recipes", shell="| true")
    assert done.stderr == ""
