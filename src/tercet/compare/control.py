"""The row of the control: the original itself, trained on. What it gains, no method may claim."""

from __future__ import annotations

import gc

from tercet import fsio
from tercet.compare.workshop import Made, Workshop
from tercet.pipeline.distil import control, run_name
from tercet.pipeline.making import making
from tercet.recipe import Recipe
from tercet.train.journal import read_journal

__all__ = ["made"]


def made(recipe: Recipe, shop: Workshop, *, validate: bool) -> Made:
    """By the recipe's `train`; its quantizers are not used. Raises TercetError."""
    asked = making(shop.source, recipe)
    lesson = shop.lesson(asked)
    folder = shop.work / "training" / f"control-{run_name(asked, lesson)}"
    try:
        module = control(asked, lesson, folder, validate=validate)
    finally:
        gc.collect()  # as in `Workshop.make`
    journal = read_journal(folder / "journal.jsonl")
    fsio.remove_folder(folder)
    return Made(module, None, 0.0, float(journal[-1]["cpu_seconds"]), journal)
