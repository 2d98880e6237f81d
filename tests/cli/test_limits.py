"""Commands that train begin again with a malloc that keeps its memory, once."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest

from tercet.cli import limits as memory


def test_the_process_begins_again_with_the_same_arguments_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[Any, ...]] = []
    monkeypatch.setattr(memory.os, "execve", lambda *args: begun.append(args))
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    memory.keep_memory()
    ((program, arguments, environment),) = begun
    assert program == sys.executable
    assert arguments[1:] == sys.orig_argv[1:]
    monkeypatch.setenv(memory.VARIABLE, environment[memory.VARIABLE])
    memory.keep_memory()
    assert len(begun) == 1
    assert memory.VARIABLE not in os.environ


def test_a_choice_that_was_made_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.os, "execve", lambda *_: pytest.fail("began again"))
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setenv(memory.VARIABLE, "glibc.malloc.check=1")
    memory.keep_memory()
    assert os.environ[memory.VARIABLE] == "glibc.malloc.check=1"
