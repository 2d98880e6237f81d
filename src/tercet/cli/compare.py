"""The command that compares methods: compare."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, needs, render, typer
from tercet.cli.live import progress_bar

__all__ = ["compare"]


def compare(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="Pretrained model: smollm2, clip-tiny, a folder, a .gguf file or a hub id."
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
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--pictures",
            metavar="NAME|PATH",
            help="Pictures for CLIP and SigLIP to learn from, may be given several times; as of `tercet quantize`.",
        ),
    ] = None,
    eval_pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-pictures", metavar="NAME|PATH", help="Pictures to measure on, may be given several times."
        ),
    ] = None,
    validation_pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--validation-pictures",
            metavar="NAME|PATH",
            help="Pictures to choose learning rates by, may be given several times.",
        ),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make a model by each recipe, measure all alike, and write one table and plots.

    Run again after a stop, it goes on from there.
    """
    needs("torch", "transformers", "matplotlib")
    from tercet.compare import Entry, Settings, compare_methods
    from tercet.pipeline import Data
    from tercet.recipe import Recipe

    made = [Recipe.load(name) for name in recipes]
    entries = [Entry(recipe.name, recipe, tuple(lr or ()) if recipe.train else (), seeds) for recipe in made]
    given: dict[str, Sequence[Any]] = {
        "--lr": [f"{rate:g}" for rate in lr or ()],
        "--seeds": [seeds],
        "--eval-text": [eval_text],
        "--validation-text": [validation_text],
        "--eval-tokens": [eval_tokens],
        "--pictures": pictures or (),
        "--eval-pictures": eval_pictures or (),
        "--validation-pictures": validation_pictures or (),
        "--threads": [threads],
    }
    settings = Settings(
        data=Data(eval_text=eval_text, pictures=tuple(pictures or ()), eval_pictures=tuple(eval_pictures or ())),
        validation_text=validation_text,
        validation_pictures=tuple(validation_pictures or ()),
        eval_tokens=eval_tokens,
        threads=threads,
        command=_command(["tercet", "compare", source, *recipes, "-o", str(out)], given),
    )
    with progress_bar() as progress:
        result = compare_methods(source, entries, out, settings, progress=progress)
    emit(result, as_json, _text)


def _command(words: Sequence[str], given: dict[str, Sequence[Any]]) -> str:
    """What was called, for the record."""
    options = [(name, str(value)) for name, values in given.items() for value in values if value is not None]
    return shlex.join([*words, *(word for option in options for word in option)])


def _text(result: dict[str, Any]) -> str:
    from tercet.compare.table import cells

    return f"{render(*cells(result))}{result['protocol']}"
