"""The pictures of a folder, by name.

Links to folders are not followed, nor what begins with a dot; a link to a file counts as that file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tercet.runtime.picture_files import SUFFIXES

__all__ = ["scan"]


def scan(folder: Path, leave_out: Path | None = None) -> Iterator[tuple[str, os.stat_result]]:
    """Files that look like pictures by name, in the order of their paths; `leave_out` is a folder in it."""
    own = leave_out.resolve() if leave_out is not None else None
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (here / name).resolve() != own)
        for name in sorted(files):
            if name.startswith(".") or not name.lower().endswith(SUFFIXES):
                continue
            try:
                status = (here / name).stat()
            except OSError:  # a link to nowhere, or gone since
                continue
            yield (here / name).relative_to(folder).as_posix(), status
