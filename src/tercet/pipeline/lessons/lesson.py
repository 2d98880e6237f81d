"""The only thing in the pipeline that knows the medium: what calibration sees, what is learnt, how it is examined."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import nn

from tercet.data.pairs import Captioned
from tercet.evaluate.rows import Row
from tercet.modules.module import ProgramModule
from tercet.pipeline.making import Making, Watch
from tercet.recipe import Calibrate

__all__ = ["Data", "Examined", "Lesson", "Taught", "Validation"]

Validation = Callable[[nn.Module], Mapping[str, float]]
"""The task that is trained -> numbers for the journal."""


@dataclass(frozen=True)
class Data:
    """What a caller gives a model to read; each kind of model refuses what it does not read.

    Attributes:
        text: calibration text of a language model: a file, "default" or "generated"; the recipe's if None.
        eval_text: text of the comparison, likewise.
        pictures: pictures with captions for an image-text model, by name or opened; those without captions unpaired.
        captions: a file of texts without pictures, or the texts.
        eval_pictures: what original and packed model are compared on.
        examine: whether they are compared at all.
    """

    text: str | Path | None = None
    eval_text: str | Path | None = None
    pictures: Sequence[str | Captioned] = ()
    captions: Path | Sequence[str] = ()
    eval_pictures: Sequence[str | Captioned] = ()
    examine: bool = True


@dataclass(frozen=True)
class Taught:
    """A teacher and what the training loop reads.

    Attributes:
        teacher: what of it has to be in memory; None where everything is stored.
        arrays: rows by name, stored answers among them.
    """

    teacher: nn.Module | None
    arrays: Mapping[str, Any]


@dataclass(frozen=True)
class Examined:
    """Attributes: rows: the original's first, where there is one; protocol: how they were measured, one sentence."""

    rows: tuple[Row, ...] = ()
    protocol: str = ""


class Lesson(Protocol):
    """A medium, for one model. What is read is read when it is first asked for."""

    def inputs(self, part: str, settings: Calibrate, watch: Watch) -> NDArray[Any]:
        """What calibration runs a part on: ids int64[n, length], or patches float32[n, patches, columns]."""
        ...

    @property
    def extent(self) -> tuple[int, ...]:
        """What of a recipe's training decides which rows calibration is given."""
        ...

    def digest(self) -> str:
        """SHA-256 of all that training reads."""
        ...

    def teach(self, cache: Path, watch: Watch) -> Taught:
        """The teacher, and its answers, kept in `cache`, where it is stored."""
        ...

    def task(self, student: ProgramModule, teacher: nn.Module | None) -> nn.Module:
        """Student, teacher and losses as one module."""
        ...

    def control(self, module: ProgramModule) -> tuple[nn.Module, Mapping[str, Any]]:
        """The float model's own task, without a teacher, and what it reads: what training alone gains."""
        ...

    def again(self, making: Making) -> Lesson:
        """The same lesson for another recipe of the same model; what both read is read once."""
        ...

    def validation(self) -> Validation | None:
        """What the journal says of the task now and then; None where there is nothing to measure it on."""
        ...

    def examine(self, folders: Mapping[str, Path], watch: Watch) -> Examined:
        """The original and packed folders, measured alike."""
        ...

    def record(self) -> dict[str, Any]:
        """What has been read, plain JSON: config.json's `calibration`."""
        ...

    def provenance(self) -> str:
        """How the weights came about, for the card: "Weights ..."."""
        ...
