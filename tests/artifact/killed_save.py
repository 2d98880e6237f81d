"""Saves over a model and dies at the n-th system call, for every n; run as a program of its own, so that fork is safe.

    python killed_save.py FOLDER "exchange" | "two renames"

Prints how many places it died at; fails if a model was lost at one.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
from tercet import fsio
from tercet.artifact import Artifact, is_artifact

CALLS = ("open", "write", "fsync", "rename", "mkdir")


class MortalOs:
    def __init__(self, last: int) -> None:
        self.left = last

    def __getattr__(self, name: str) -> Any:
        # The process dies here, not the machine: nothing need reach the disk.
        function = (lambda _: None) if name == "fsync" else getattr(os, name)
        return self.counted(function) if name in CALLS else function

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                os._exit(9)
            return function(*args, **options)

        return call


def save_and_die(folder: Path, last: int, exchange: bool) -> bool:
    """Whether it died."""
    child = os.fork()
    if child == 0:
        mortal = MortalOs(last)
        fsio._exchange = mortal.counted(fsio._exchange if exchange else lambda *_: False)
        fsio.os = mortal  # type: ignore[assignment]
        folders.save(folder, source={"name": f"new {last}"})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def main(folder: Path, exchange: bool) -> int:
    fsio.os = MortalOs(0)  # type: ignore[assignment]
    old, last = folder.parent / "old", 1
    folders.save(old, source={"name": "old"})
    shutil.copytree(old, folder)
    while save_and_die(folder, last, exchange):
        aside = list(folder.parent.glob(".*.old-*"))
        # Between two renames the old model is aside, whole, and the next writer puts it back.
        Artifact.open(folder if folder.exists() else aside[0], check=True)
        with fsio.atomic_folder(folder, replaces=is_artifact) as temporary:
            shutil.copytree(old, temporary, dirs_exist_ok=True)
        assert {path.name for path in folder.parent.iterdir()} == {folder.name, "old"}, "stale temporaries"
        last += 1
    assert Artifact.open(folder).config["source"]["name"] == f"new {last}"
    return last - 1


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), sys.argv[2] == "exchange"))
