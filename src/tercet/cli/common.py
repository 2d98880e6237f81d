"""What all commands share: how results are printed, progress shown, and errors turned into exit codes."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tercet.errors import TercetError

__all__ = ["AsJson", "Commands", "Kv", "Threads", "emit", "progress_bar", "render", "typer"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="Threads; as many as this process may use CPUs if absent."),
]

Kv = Annotated[
    Literal["float16", "int8", "float32"],
    typer.Option("--kv", help="The KV cache's type: float16, or int8 in half the memory."),
]

INTERRUPTED = {
    "quantize": "finished blocks and training steps are kept: run the same command again to go on from there",
    "tune": "finished steps are kept: run the same command again to go on from there",
    "compare": "finished runs are kept: run the same command again to go on from there",
    "index": "what was embedded is in the index: run the same command again to go on from there",
    "demo": "finished models are kept: run it again to go on from there",
}


class Commands(typer.core.TyperGroup):
    """The command group: one line and an exit code for every error a user can cause."""

    def invoke(self, ctx: Any) -> Any:
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # text that cannot be read or shown is no reason to stop
                stream.reconfigure(errors="replace")
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
        try:
            return super().invoke(ctx)
        except TercetError as error:
            _say(str(error))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            what = INTERRUPTED.get(ctx.invoked_subcommand or "", "nothing was changed")
            _say(f"interrupted; {what}")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output went away, as `head` does
            sys.stderr.close()
            raise typer.Exit(1) from None


def _say(line: str) -> None:
    print("tercet: " + " ".join(line.split()), file=sys.stderr)


def emit(result: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Prints the result on stdout: as one line of JSON (numbers that are not finite as null), or as text."""
    if as_json:
        print(json.dumps(_finite(result), allow_nan=False), flush=True)
    else:
        print(text(result).rstrip("\n"), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def render(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table as text, as wide as the terminal or 120 columns where there is none."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    sheet = Table()
    for index, heading in enumerate(headings):
        sheet.add_column(heading, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        sheet.add_row(*row)
    with console.capture() as capture:
        console.print(sheet)
    return capture.get()


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total) that draws a bar with the time left on stderr; nothing before its first call."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
    tasks: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield update
    finally:
        if tasks:
            bars.stop()
