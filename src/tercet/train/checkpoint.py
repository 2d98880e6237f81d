"""Checkpoints: whole or not there, checked before use, without pickle.

    FOLDER/step-00000100/
        weights.safetensors     what is trained, and the buffers that go with it
        optimizer.safetensors   "<parameter>/exp_avg" and so on
        codes.safetensors       codes at the last count of flips
        checkpoint.json         step, facts (random states, what the run is made of), CRC-32C of all files

A save is `fsio.atomic_folder`: written beside its place, synced, renamed. The newest `KEEP` stay, so that one is whole
on disk while another is damaged. A damaged one is left out with one line in the log.

Sharded tensors (FSDP2) are gathered one at a time, so every process calls `save`; only the first one writes, and the
files are the same for any number of processes.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tercet import fsio
from tercet.artifact import strict_json
from tercet.errors import FormatError, TercetError
from tercet.train.processes import Processes, whole
from tercet.train.tensors import checksum, pieces, read

__all__ = ["Checkpoint", "Checkpoints"]

log = logging.getLogger("tercet.train")

KEEP = 2
STATE = "checkpoint.json"
NAME = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose bytes have been checked."""

    path: Path
    step: int
    facts: Mapping[str, Any]

    def tensors(self, file: str) -> Iterator[tuple[str, Tensor]]:
        """Each tensor of one of its files, by name; whole, on the CPU."""
        return read(self.path / f"{file}.safetensors")


class Checkpoints:
    """The checkpoints of a run, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(
        self, step: int, facts: Mapping[str, Any], files: Mapping[str, Mapping[str, Tensor]], processes: Processes
    ) -> Path:
        """Saves after `step` steps, and removes what is older than the newest `KEEP`.

        Args:
            facts: plain JSON.
            files: tensors by name, by the file's name without its suffix.

        Raises StorageError on all processes; the checkpoints from before are then still there.
        """
        path = self.folder / f"step-{step:08d}"
        parts = {name: pieces(tensors, whole) for name, tensors in files.items()}

        def write() -> None:
            try:
                with fsio.atomic_folder(path, replaces=lambda _: True) as temporary:
                    sums = {name: _write(temporary / f"{name}.safetensors", part) for name, part in parts.items()}
                    state = {"step": step, "facts": dict(facts), "crc32c": sums}
                    text = json.dumps(state, allow_nan=False)
                    crc = f"{google_crc32c.value(text.encode()):08x}"
                    fsio.write_file(temporary / STATE, json.dumps({"crc32c": crc, "state": text}).encode())
                self._prune(step)
            finally:
                _exhaust(parts.values())  # the other processes are still giving their parts

        if not processes.first:
            _exhaust(parts.values())
        processes.first_does(write)
        return path

    def newest(self) -> Checkpoint | None:
        """The newest that is whole; None where there is none at all. Raises FormatError where all are damaged."""
        damaged = ""
        for step, path in sorted(self._steps().items(), reverse=True):
            try:
                checkpoint = _open(path, step)
            except (FormatError, OSError) as error:
                damaged = damaged or str(error)
                continue
            if damaged:
                log.warning("%s; going on from %s", damaged, path.name)
            return checkpoint
        if damaged:
            raise FormatError(f"{damaged}; no other checkpoint is left: begin again without resuming")
        return None

    def clean(self) -> None:
        """Removes what writers that were killed have left."""
        fsio.remove_stale(self.folder)

    def clear(self) -> None:
        """Removes all checkpoints."""
        for path in self._steps().values():
            fsio.remove_folder(path)

    def _prune(self, step: int) -> None:
        """Also those after `step`: they were damaged, or they would not have been gone back from."""
        steps = self._steps()
        kept = sorted(s for s in steps if s <= step)[-KEEP:]
        for other, path in steps.items():
            if other not in kept:
                fsio.remove_folder(path)

    def _steps(self) -> dict[int, Path]:
        if not self.folder.is_dir():
            return {}
        matches = ((NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in matches if match}


def _write(path: Path, part: Iterator[NDArray[np.uint8]]) -> str:
    crc = 0

    def counted() -> Iterator[NDArray[np.uint8]]:
        nonlocal crc
        for piece in part:
            crc = google_crc32c.extend(crc, piece)
            yield piece

    fsio.write_file(path, counted())
    return f"{crc:08x}"


def _exhaust(parts: Iterable[Iterator[NDArray[np.uint8]]]) -> None:
    for part in parts:
        for _ in part:
            pass


def _open(path: Path, step: int) -> Checkpoint:
    state = _state(path / STATE)
    if state["step"] != step:
        raise FormatError(f"{path}: is of step {state['step']}; somebody renamed it")
    for name, expected in state["crc32c"].items():
        if checksum(path / f"{name}.safetensors") != expected:
            raise FormatError(f"{path}: {name}.safetensors is damaged")
    return Checkpoint(path, step, state["facts"])


def _state(path: Path) -> dict[str, Any]:
    try:
        outer = strict_json.parse(path.read_bytes(), str(path))
        text = outer["state"].encode()
        if f"{google_crc32c.value(text):08x}" != outer["crc32c"]:
            raise FormatError(f"{path}: is damaged")
        state: dict[str, Any] = json.loads(text)
    except TercetError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: is damaged ({type(error).__name__})") from None
    return state
