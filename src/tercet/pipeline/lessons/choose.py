"""The lesson of a model, by what kind of model it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tercet.errors import RecipeError
from tercet.pipeline.lessons.lesson import Data, Lesson
from tercet.pipeline.lessons.pair import PairLesson
from tercet.pipeline.lessons.text import TextLesson
from tercet.pipeline.making import Making
from tercet.sources import Source

__all__ = ["READS", "lesson_for", "refuse_unread"]

READS = {"text": ("text", "eval_text"), "pair": ("pictures", "captions", "eval_pictures")}
NAMES = {"text": "a language model", "pair": "an image-text model"}


def lesson_for(making: Making, data: Data, threads: int | None) -> Lesson:
    """Raises RecipeError where `data` has what such a model does not read, TercetError where a file cannot be read.

    Args:
        threads: of the engine, where models are examined.
    """
    refuse_unread(making.source, data, READS)
    return PairLesson(making, data, threads) if making.model.kind == "pair" else TextLesson(making, data, threads)


def refuse_unread(source: Source, given: object, reads: Mapping[str, Sequence[str]]) -> None:
    """Raises RecipeError where `given` has something in an attribute that only models of another kind read.

    Args:
        reads: attributes by the kind that reads them.
    """
    kind = source.model.kind
    for other, names in reads.items():
        filled = [name for name in names if getattr(given, name)]
        if other != kind and filled:
            what = filled[0].replace("_", "-")
            raise RecipeError(f"{source.name} is {NAMES[kind]}, which does not read {what}; leave it out")
