"""Package clients that reach no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.data import packages


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], list[list[str]]]:
    """`client(name, content)`: package clients now leave this file; gives the commands they are called with."""
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))

    def leaves(name: str, content: bytes) -> list[list[str]]:
        called: list[list[str]] = []

        def run(command: list[str], *, cwd: str, **_: object) -> object:
            called.append(command)
            (Path(cwd) / name).write_bytes(content)
            return type("Done", (), {"returncode": 0, "stderr": ""})

        monkeypatch.setattr(packages.subprocess, "run", run)
        return called

    return leaves
