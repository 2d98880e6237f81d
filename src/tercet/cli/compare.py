"""The command that compares methods."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, progress_bar, render, typer

__all__ = ["compare"]


def compare(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="smollm2, a folder, a .gguf file or a hub id.")],
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE...", help="Recipes, by name or file: a row each.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where table, plots and finished rows go.")],
    lr: Annotated[
        list[float] | None,
        typer.Option("--lr", help="A learning rate to try, may be given several times; the recipe's alone if absent."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Full runs of each recipe that trains.")] = 1,
    eval_text: Annotated[
        str | None,
        typer.Option(
            "--eval-text", metavar="FILE|default|generated", help="Text of the table; the recipe's if absent."
        ),
    ] = None,
    validation_text: Annotated[
        str | None,
        typer.Option("--validation-text", metavar="FILE|default|generated", help="Text that rates are chosen by."),
    ] = None,
    eval_tokens: Annotated[
        int | None, typer.Option("--eval-tokens", min=2, help="Of both texts; the first recipe's if absent.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make a model by each recipe, measure all alike, and write one table and plots; goes on where it was stopped."""
    from tercet.compare import Entry, compare_methods
    from tercet.recipe import Evaluate, Recipe

    made = [Recipe.load(name) for name in recipes]
    entries = [Entry(recipe.name, recipe, tuple(lr or ()) if recipe.train else (), seeds) for recipe in made]
    measured = made[0].evaluate
    if eval_tokens is not None:
        context = min(measured.context, eval_tokens)
        measured = Evaluate(tokens=eval_tokens, context=context, text=measured.text)
    rates = [part for rate in lr or () for part in ("--lr", f"{rate:g}")]
    texts = {"--eval-text": eval_text, "--validation-text": validation_text, "--eval-tokens": eval_tokens}
    others = [word for name, value in {**texts, "--threads": threads}.items() if value for word in (name, str(value))]
    words = ["tercet", "compare", source, *recipes, "-o", str(out), *rates, "--seeds", str(seeds), *others]
    with progress_bar() as progress:
        result = compare_methods(
            source,
            entries,
            out,
            evaluate=measured,
            eval_text=eval_text,
            validation_text=validation_text,
            threads=threads,
            command=shlex.join(words),
            progress=progress,
        )
    emit(result, as_json, _text)


def _text(result: dict[str, Any]) -> str:
    from tercet.compare.table import cells

    return f"{render(*cells(result))}{result['protocol']}"
