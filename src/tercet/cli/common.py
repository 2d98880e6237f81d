"""What all commands share: options, how results are printed, and errors turned into exit codes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tercet.cli.streams import lenient, result_written, silence
from tercet.errors import TercetError
from tercet.interrupt import EXIT
from tercet.shown import printable

__all__ = ["AsJson", "Commands", "Kv", "Threads", "emit", "needs", "render", "say", "typer"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="Threads to use; default: all CPUs this process may use."),
]

Kv = Annotated[
    Literal["float16", "int8", "float32"],
    typer.Option("--kv", help="Type of the KV cache: float16, int8 in half the memory, or float32."),
]

INTERRUPTED = {
    "quantize": "finished blocks and training steps are kept: run the same command again to go on from there",
    "tune": "finished steps are kept: run the same command again to go on from there",
    "compare": "finished runs are kept: run the same command again to go on from there",
    "index": "what was embedded is in the index: run the same command again to go on from there",
    "demo": "finished models are kept: run it again to go on from there",
}
EXTRAS = {
    "train": ("torch", "transformers", "accelerate", "gguf", "huggingface_hub", "mwparserfromhell"),
    "images": ("PIL", "faiss"),
    "parquet": ("pyarrow",),
    "report": ("matplotlib",),
}


class Commands(typer.core.TyperGroup):
    """The command group: one line and an exit code for every error a user can cause."""

    def invoke(self, ctx: Any) -> Any:
        lenient()
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
        try:
            return super().invoke(ctx)
        except TercetError as error:
            say(str(error))
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if _extra(package) is None:
                raise
            say(_missing(package))
        except KeyboardInterrupt:
            what = INTERRUPTED.get(ctx.invoked_subcommand or "", "nothing was changed")
            say(f"interrupted; {what}")
            raise typer.Exit(EXIT) from None
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            silence()
        except OSError as error:  # of the machine, not of the program: no memory map, no process, no file left
            say(f"{error.filename or ctx.invoked_subcommand}: {error.strerror or error}")
        raise typer.Exit(1) from None


def needs(*packages: str) -> None:
    """Raises TercetError, before the work, where one of these packages is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise TercetError(_missing(package))


def _missing(package: str) -> str:
    return f"this needs the package {package}, which is not installed; pip install 'tercet[{_extra(package)}]'"


def _extra(package: str) -> str | None:
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)


def say(line: str) -> None:
    """One line on stderr."""
    print("tercet: " + printable(" ".join(line.split())), file=sys.stderr)


def emit(result: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Prints the result on stdout: as one line of JSON (numbers that are not finite as null), or as text.

    Raises StorageError where stdout is full.
    """
    shown = json.dumps(_finite(result), allow_nan=False) if as_json else text(result).rstrip("\n")
    with result_written():
        print(shown, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def render(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, left: int = 1) -> str:
    """A table as text, as wide as the terminal or 140 columns where there is none; cells are shown as they are.

    Args:
        left: columns that hold words; the others hold numbers, and end on the right.
    """
    console = Console(width=None if sys.stdout.isatty() else 140)
    sheet = Table()
    for index, heading in enumerate(headings):
        sheet.add_column(_cell(heading), justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        sheet.add_row(*map(_cell, row))
    with console.capture() as capture:
        console.print(sheet)
    return capture.get()


def _cell(text: str) -> Text:
    """Not a string, in which rich would look for its markup."""
    return Text(printable(text))
