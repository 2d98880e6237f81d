"""What every source of pictures gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError

__all__ = ["TEMPLATES", "Metric", "PictureSet", "Sample", "Task", "lines"]

Task = Literal["classification", "retrieval"]
Metric = Literal["top1", "mean_per_class", "mean_average_precision", "recall"]

TEMPLATES = ("a photo of a {c}.",)
MAX_LINES = 4 << 20


@dataclass(frozen=True)
class Sample:
    """A picture and what is said of it.

    Attributes:
        name: what messages call it.
        picture: its file, the content of it, or pixels uint8[h, w, 3].
        labels: numbers of its classes; one, unless the set is multi-label; none where the task is retrieval.
        captions: at least one where the task is retrieval.
    """

    name: str
    picture: Path | bytes | NDArray[np.uint8]
    labels: tuple[int, ...] = ()
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureSet:
    """A dataset.

    Attributes:
        metric: the one that papers report of it.
        classes: names by number; empty where the task is retrieval.
        templates: prompts, with {c} for the name.
        samples: begins to read it; raises FormatError where it cannot go on.
        training: the same for the pictures of a linear probe, where there are some.
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
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())
