"""What every source of pictures gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tercet.errors import FormatError
from tercet.runtime.pictures.files import PictureSource

__all__ = ["TEMPLATES", "Metric", "PictureSet", "Sample", "Task", "check_classes", "filled", "lines", "natural"]

Task = Literal["classification", "retrieval"]
Metric = Literal["top1", "mean_per_class", "mean_average_precision", "recall"]

TEMPLATES = ("a photo of a {c}.",)
PLACE = re.compile(r"\{c?\}")
MAX_LINES = 4 << 20


@dataclass(frozen=True)
class Sample:
    """A picture and what is said of it.

    Attributes:
        name: what messages call it.
        picture: its file, where it lies in a tar, or pixels uint8[h, w, 3]; files are read when they are opened.
        labels: numbers of its classes; one, unless the set is multi-label; none where the task is retrieval.
        captions: at least one where the task is retrieval.
    """

    name: str
    picture: PictureSource
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureSet:
    """A dataset.

    Attributes:
        metric: the one that papers report of it.
        classes: names by number; empty where the task is retrieval.
        templates: prompts, with {c} or {} for the name (`filled`).
        samples: begins to read it; raises FormatError where it cannot go on.
        training: the same for the pictures of a linear probe, where there are some; of the same classes.
    """

    name: str
    task: Task
    metric: Metric
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    samples: Callable[[], Iterator[Sample]]
    training: Callable[[], Iterator[Sample]] | None = None


def lines(path: Path) -> tuple[str, ...] | None:
    """The lines of a small text file that hold something; None where there is no such file. Raises FormatError."""
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_LINES:
        raise FormatError(f"{path}: more than {MAX_LINES >> 20} MB; a name or a prompt a line belongs there")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a mark of the byte order first
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def filled(template: str, name: str) -> str:
    """A prompt: the name in the place of {c}, as CLIP-benchmark writes it, or {}; other braces are text."""
    return PLACE.sub(lambda _: name, template)


def natural(name: str) -> tuple[int, int, str]:
    """The key of an order in which 9 comes before 10, and numbers before words."""
    return (0, int(name), name) if name.isascii() and name.isdigit() and len(name) < 19 else (1, 0, name)


def check_classes(pictures: PictureSet, samples: Iterable[Sample]) -> None:
    """Raises FormatError for a sample of a class that the set has no name for."""
    for sample in samples:
        if any(label >= len(pictures.classes) for label in sample.labels):
            raise FormatError(
                f"{pictures.name}: {sample.name[:80]!r} is of class {max(sample.labels)}, but there are names for"
                f" {len(pictures.classes)}; correct classnames.txt"
            )
