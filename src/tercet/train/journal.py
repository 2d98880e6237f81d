"""The journal of a run: one JSON object a line, one line a step, in `journal.jsonl`.

    step, epoch, tokens             so far
    loss, parts                     means over the step's batches and all processes
    rates                           of weights, scales and vectors
    gradient                        norm of all gradients, before clipping
    zeros, flips, scale             now and then (see `tercet.train.statistics`)
    evaluation                      what the caller's evaluation says
    seconds, cpu_seconds            so far, evaluations left out; of all processes together the latter

Step 0 has an evaluation and nothing else. A resumed run cuts the journal back to its checkpoint's step and goes on: but
for the last two fields it ends with the bytes of a run that nothing disturbed. What `trackio` gets, where it is
installed, is a copy for looking at; nothing is read from it, and its failures stop nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.errors import FormatError

__all__ = ["Journal", "read_journal"]

log = logging.getLogger("tercet.train")


class Journal:
    """Writes a run's journal.

    Args:
        path: the file; what it has after `step` is cut off, all of it if that is None. Folders are made.
        config: what trackio shows beside the curves.

    Raises StorageError: also where another process has the run, until `close`.
    """

    def __init__(self, path: Path, step: int | None, config: Mapping[str, Any]) -> None:
        self.path = path
        self._lock = fsio.lock_folder(path.parent, "another process is training the same run; wait for it")
        kept = b"".join(line for line, record in _lines(path) if step is not None and record["step"] <= step)
        fsio.atomic_file(path, kept)
        self._tracker = _tracker(path.parent.name, config)

    def write(self, record: Mapping[str, Any]) -> None:
        """Adds a line. Raises StorageError."""
        fsio.append_file(self.path, json.dumps(record, allow_nan=False).encode() + b"\n")
        if self._tracker is not None:
            try:
                self._tracker.log(_flat(record), step=record["step"])
            except Exception as error:
                log.warning("trackio: %s; nothing more is sent to it", " ".join(str(error).split())[:200])
                self._tracker = None

    def sync(self) -> None:
        """Waits until all lines are on the disk: a checkpoint must not be ahead of them."""
        fsio.sync_file(self.path)

    def close(self) -> None:
        os.close(self._lock)
        if self._tracker is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self._tracker.finish()


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """All records of a journal; a last line that was cut off is left out. Raises FormatError where there are none."""
    records = [record for _, record in _lines(Path(path))]
    if not records:
        raise FormatError(f"{path}: no journal; give the folder of a run")
    return records


def _lines(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Lines with their records, up to the first that is not whole."""
    found: list[tuple[bytes, dict[str, Any]]] = []
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return found
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        found.append((line, record))
    return found


def _tracker(name: str, config: Mapping[str, Any]) -> Any:
    try:
        trackio = importlib.import_module("trackio")
        with contextlib.redirect_stdout(sys.stderr):  # it greets; stdout belongs to results
            trackio.init(project="tercet", name=name, config=dict(config), resume="allow")
    except ImportError:
        return None
    except Exception as error:
        log.warning("trackio: %s; nothing is sent to it", " ".join(str(error).split())[:200])
        return None
    return trackio


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers by dotted name."""
    flat: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float):
            flat[f"{prefix}{name}"] = value
    return flat
