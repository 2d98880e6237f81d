"""Where converted models and texts are kept: `TERCET_CACHE`, else ~/.cache/tercet. Everything there can be made again.

An entry is a folder that is there whole or not at all: it is made under a temporary name, flushed, and renamed. Two
processes may make the same entry at once; both succeed, and what they made is the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tercet import fsio
from tercet.errors import StorageError

__all__ = ["cache_dir", "entry"]


def cache_dir() -> Path:
    """The cache folder (not necessarily there yet). Raises StorageError where there is no home folder and no name."""
    named = os.environ.get("TERCET_CACHE")
    try:
        return Path(named) if named else Path.home() / ".cache" / "tercet"
    except RuntimeError:  # a user without a home, as in containers
        raise StorageError("this user has no home folder for a cache; name a folder in TERCET_CACHE") from None


def entry(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder <cache>/<kind>/<key>; if it is not there, `make` fills an empty folder that becomes it.

    Raises what `make` raises, and StorageError where the cache cannot be written.
    """
    place = cache_dir() / kind / key
    if not place.is_dir():
        with fsio.atomic_folder(place, replaces=lambda _: True) as folder:
            make(folder)
    return place
