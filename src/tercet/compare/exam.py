"""What all rows of a comparison are measured on: the only thing here that knows the medium.

Rows are told apart by scores, by name; one of them, the headline, stands for the others where one number is wanted: to
choose learning rates, to mark what has not converged, to draw. Rates are chosen on a validation split: the test split
chooses nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tercet.evaluate.rows import words
from tercet.modules.module import ProgramModule
from tercet.pipeline.lessons import Data

__all__ = ["COSTS", "Exam", "Headline", "Measured"]

Measured = Path | ProgramModule
"""A packed folder, which the engine runs, or a module, which torch does."""

COSTS = (
    "± is half the distance between seeds. Bits count codes, padding, scales and shifts; MB are 10^6 bytes. CPU minutes"
    " are those of all threads, for the start and the training of one run; tried learning rates and measuring are not"
    " among them."
)


@dataclass(frozen=True)
class Headline:
    """Attributes: name: of the score; less: whether less of it is better."""

    name: str
    less: bool

    @property
    def said(self) -> str:
        return words(self.name)

    def times_worse(self, value: float, original: float) -> float:
        """2 for twice a perplexity, or half a share."""
        over, under = (value, original) if self.less else (original, value)
        return over / under if under else math.inf

    def gain(self, before: float, after: float) -> float:
        """By what share of `before` it has become better; negative where it has become worse."""
        change = after / before - 1
        return -change if self.less else change

    def best(self, values: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Of pairs (value, anything)."""
        return min(values) if self.less else max(values)

    @property
    def moves(self) -> str:
        """What it does when a model becomes better."""
        return "fell" if self.less else "rose"


class Exam(Protocol):
    """Attributes:
    headline: the score that stands for all.
    shown: scores of the table, in its order.
    identity: what of the exam decides a result, plain JSON.
    protocol: how rows are measured, in sentences.
    data: what models learn from, and are validated on meanwhile.
    chooses: whether there is something to choose learning rates by.
    """

    headline: Headline
    shown: Sequence[str]
    identity: Mapping[str, Any]
    protocol: str
    data: Data
    chooses: bool

    @property
    def original(self) -> Mapping[str, Any]:
        """The original's "scores", "file_mb", "bits_per_weight" and "runs_on"."""
        ...

    def scores(self, model: Measured) -> dict[str, float]:
        """By name, on the test split."""
        ...

    def validated(self, model: Measured) -> float:
        """The headline on the validation split."""
        ...

    def of_journal(self, evaluation: Mapping[str, float]) -> float:
        """The same of what training's journal says of the validation split."""
        ...
