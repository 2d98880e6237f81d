"""The `tercet` command.

stdout carries a command's result, or one JSON object with --json; progress and logs go to stderr. Exit codes: 0 done,
1 a `TercetError` (one line on stderr), 2 usage, 130 interrupted. Commands import what they need when they run, so that
`tercet generate` on a machine without torch works, and `--help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

from tercet import __version__, interrupt
from tercet.cli import compare, images, info, make, measure, run, streams
from tercet.cli.common import Commands, say, typer
from tercet.cli.limits import keep_memory
from tercet.errors import TercetError

__all__ = ["app", "main"]

GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Make": {"quantize": make.quantize, "tune": make.tune, "demo": make.demo},
    "Run": {"generate": run.generate, "chat": run.chat},
    "Measure": {
        "eval": measure.evaluate,
        "compare": compare.compare,
        "bench": measure.bench,
        "verify": measure.verify,
    },
    "Images": {"embed": images.embed, "index": images.index, "search": images.search},
    "Info": {"inspect": info.inspect, "recipes": info.recipes, "models": info.models, "info": info.info},
}

app = typer.Typer(
    name="tercet",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a pretrained language model or CLIP ternary, and run it on a CPU.",
)
for group, commands in GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=group)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tercet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """The whole process; `tercet.__main__` has seen to Ctrl-C before."""
    try:
        streams.open_all()
        if sys.argv[1:2] in (["quantize"], ["tune"], ["compare"]):
            keep_memory()
        with streams.result_written():  # also help and version
            app()
    except TercetError as error:
        say(str(error))
        sys.exit(1)
    except BrokenPipeError:
        streams.silence()
        sys.exit(1)
    finally:
        interrupt.disarm()
