"""Where converted models and texts are kept: `TERCET_CACHE`, else ~/.cache/tercet. Everything there can be made again.

An entry is a folder, made under a temporary name beside its place, flushed, and renamed: it is there whole or not at
all. Two processes that make the same entry both succeed; the first rename wins.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["cache_dir", "entry"]

STALE_SECONDS = 86_400  # a temporary folder older than a day was left behind by a killed process


def cache_dir() -> Path:
    """The cache folder (not necessarily there yet)."""
    named = os.environ.get("TERCET_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "tercet"


def entry(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder <cache>/<kind>/<key>; if it is not there, `make` fills an empty folder that becomes it."""
    place = cache_dir() / kind / key
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.parent)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=place.parent))
    try:
        make(temporary)
        for path in [*temporary.iterdir(), temporary]:
            _flush(path)
        temporary.chmod(0o755)
        try:
            temporary.rename(place)
        except OSError:
            if not place.is_dir():  # anything but another process having been faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for path in folder.glob(".tmp-*"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
