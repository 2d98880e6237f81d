"""Class folders: one folder a class, named as the class is; classnames.txt may give them other names.

    DIR/cat/1.jpg  DIR/dog/2.png       or DIR/test/cat/1.jpg with DIR/train/cat/3.jpg for a linear probe

Folders called by numbers are classes in the order of these numbers, others in that of their sorting.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tercet.data.sets.sample import Sample, natural
from tercet.errors import FormatError
from tercet.runtime.pictures.files import SUFFIXES, UNREAD, left_out

__all__ = ["class_folders", "class_names", "read_folders", "refuse_numbers", "say_left_out"]

log = logging.getLogger("tercet.data")

WORDNET = re.compile(r"n\d{8}")


def class_folders(folder: Path) -> tuple[str, ...]:
    """Their names, in the order of the classes. Raises FormatError where there are none."""
    names = [path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if not names:
        raise FormatError(f"{folder}: no class folders in it, no tars; give a folder with a folder for each class")
    return tuple(sorted(names, key=natural))


def read_folders(folder: Path, classes: Sequence[str]) -> Iterator[Sample]:
    """The pictures of its class folders, a class's number being the place of its folder's name in `classes`.

    Raises FormatError, at once, for a folder that is none of them.
    """
    found = class_folders(folder)
    number = {name: index for index, name in enumerate(classes)}
    unknown = [name for name in found if name not in number]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise FormatError(f"{folder}: {unknown[0][:80]!r}{more}: the test pictures have no such class; take it out")
    return _samples(folder, {name: number[name] for name in found})


def _samples(folder: Path, numbers: dict[str, int]) -> Iterator[Sample]:
    for name, number in numbers.items():
        for path in sorted((folder / name).rglob("*")):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                yield Sample(str(path.relative_to(folder)), path, (number,))


def say_left_out(folder: Path) -> None:
    """Warns of pictures that are passed over for their format."""
    endings = Counter(path.suffix.lower() for path in folder.rglob("*") if not path.name.startswith("."))
    if passed := {ending: count for ending, count in endings.items() if ending in UNREAD}:
        log.warning("%s: %s", folder, left_out(passed))


def class_names(folder: Path, folders: Sequence[str], known: Sequence[str] | None) -> tuple[str, ...]:
    """What the classes of these folders are called.

    Args:
        known: their names: by name where they are those of the folders in another order, else by place. The folders'
            own if absent.

    Raises FormatError: names for another number of folders, or none for folders called by numbers.
    """
    own = [name.replace("_", " ") for name in folders]
    if known is None:
        if all(WORDNET.fullmatch(name) for name in folders):
            raise FormatError(
                f"{folder}: its folders are numbers of WordNet, no names; put a name a line, in the order of the"
                " folders, into classnames.txt beside them"
            )
        refuse_numbers(folder, folders)
        return tuple(own)
    if len(known) != len(folders):
        raise FormatError(f"{folder}: {len(folders)} class folders, but there are names for {len(known)} classes")
    by_name = {_plain(name): name for name in known}
    if len(by_name) == len(known) and by_name.keys() == {_plain(name) for name in own}:
        return tuple(by_name[_plain(name)] for name in own)
    return tuple(known)


def refuse_numbers(where: Path, classes: Sequence[str]) -> None:
    """Raises FormatError where classes are numbers, which a model would read as words."""
    if classes and all(name.strip().isdigit() for name in classes):
        raise FormatError(
            f"{where}: its classes are called by numbers ({classes[0]} to {classes[-1]}); put their names, one a line"
            " in the order of the numbers, into classnames.txt beside it"
        )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())
