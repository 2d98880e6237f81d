"""The command that compares methods: compare."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, needs, render, typer
from tercet.cli.live import progress_bar

__all__ = ["compare"]


def compare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Pretrained language model: smollm2, a folder, a .gguf file or a hub id."
        ),
    ],
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE...", help="Recipes to compare, each a name or a file.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the table, the plots and finished rows.")
    ],
    lr: Annotated[
        list[float] | None,
        typer.Option("--lr", help="Learning rate to try, may be given several times; default: the recipe's."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of full runs of each recipe that trains.")] = 1,
    eval_text: Annotated[
        str | None,
        typer.Option(
            "--eval-text", metavar="FILE|default|generated", help="Text to measure on; default: the recipe's."
        ),
    ] = None,
    validation_text: Annotated[
        str | None,
        typer.Option("--validation-text", metavar="FILE|default|generated", help="Text to choose learning rates by."),
    ] = None,
    eval_tokens: Annotated[
        int | None,
        typer.Option("--eval-tokens", min=2, help="Number of tokens of both texts; default: the first recipe's."),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make a model by each recipe, measure all alike, and write one table and plots.

    Run again after a stop, it goes on from there.
    """
    needs("torch", "transformers", "matplotlib")
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
