"""The lesson of a model, by what kind of model it is."""

from __future__ import annotations

from tercet.errors import RecipeError
from tercet.pipeline.lessons.lesson import Data, Lesson
from tercet.pipeline.lessons.pair import PairLesson
from tercet.pipeline.lessons.text import TextLesson
from tercet.pipeline.making import Making

__all__ = ["lesson_for"]

READS = {"text": ("text", "eval_text"), "pair": ("pictures", "captions", "eval_pictures")}
NAMES = {"text": "a language model", "pair": "an image-text model"}


def lesson_for(making: Making, data: Data, threads: int | None) -> Lesson:
    """Raises RecipeError where `data` has what such a model does not read, TercetError where a file cannot be read.

    Args:
        threads: of the engine, where models are examined.
    """
    kind = making.model.kind
    for other, names in READS.items():
        given = [name for name in names if getattr(data, name)]
        if other != kind and given:
            what = given[0].replace("_", "-")
            raise RecipeError(f"{making.source.name} is {NAMES[kind]}, which does not read {what}; leave it out")
    return PairLesson(making, data, threads) if kind == "pair" else TextLesson(making, data, threads)
