"""Class folders: one folder a class, named as the class is; classnames.txt may give them other names, in sorted order.

DIR/cat/1.jpg  DIR/dog/2.png          or DIR/test/cat/1.jpg with DIR/train/cat/3.jpg for a linear probe
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tercet.errors import FormatError
from tercet.evaluate.datasets.sample import Sample, lines
from tercet.runtime.picture_files import SUFFIXES

__all__ = ["class_folders"]


def class_folders(folder: Path) -> tuple[tuple[str, ...], Callable[[], Iterator[Sample]]]:
    """Class names, and what begins to read. Raises FormatError where there are no folders, or names for other ones."""
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise FormatError(f"{folder}: no class folders in it, no tars; give a folder with a folder for each class")
    names = lines(folder / "classnames.txt") or lines(folder.parent / "classnames.txt")
    if names is not None and len(names) != len(folders):
        raise FormatError(f"{folder}: {len(folders)} class folders, but classnames.txt has {len(names)} lines")

    def samples() -> Iterator[Sample]:
        for number, place in enumerate(folders):
            for path in sorted(place.rglob("*")):
                if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                    yield Sample(str(path.relative_to(folder)), path, (number,))

    return names or tuple(path.name.replace("_", " ") for path in folders), samples
