"""The exam of a model, by what kind of model it is."""

from __future__ import annotations

from pathlib import Path

from tercet.compare.exam import Exam
from tercet.compare.pair import PairExam
from tercet.compare.settings import Settings
from tercet.compare.text import TextExam
from tercet.pipeline.lessons.choose import READS, refuse_unread
from tercet.progress import Progress
from tercet.recipe import Recipe
from tercet.sources import Source

__all__ = ["exam_for"]

CHOOSES = {"text": ("validation_text", "eval_tokens"), "pair": ("validation_pictures",)}


def exam_for(source: Source, settings: Settings, first: Recipe, work: Path, step: Progress) -> Exam:
    """Raises RecipeError where `settings` have what such a model does not read, TercetError where there is nothing to
    measure on.

    Args:
        first: the recipe that says what `settings` do not.
        work: folder for what an exam keeps.
    """
    refuse_unread(source, settings.data, READS)
    refuse_unread(source, settings, CHOOSES)
    if source.model.kind == "pair":
        return PairExam(source, settings)
    return TextExam(source, settings, first, work, step)
