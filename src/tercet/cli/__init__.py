"""The `tercet` command.

stdout carries a command's result, or one JSON object with --json; progress and logs go to stderr. Exit codes: 0 done,
1 a `TercetError` (one line on stderr), 2 usage, 130 interrupted. Commands import what they need when they run, so that
`tercet generate` on a machine without torch works, and `--help` is quick.
"""

from __future__ import annotations

import sys

from tercet.cli import compare, files, make, measure, pictures, talk
from tercet.cli.common import Commands, typer
from tercet.cli.limits import keep_memory

__all__ = ["app", "main"]

app = typer.Typer(
    name="tercet",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn a pretrained language model or CLIP ternary, and run it on a CPU.",
)
app.command("quantize")(make.quantize)
app.command("tune")(make.tune)
app.command("compare")(compare.compare)
app.command("eval")(measure.evaluate)
app.command("generate")(talk.generate)
app.command("chat")(talk.chat)
app.command("embed")(pictures.embed)
app.command("index")(pictures.index)
app.command("search")(pictures.search)
app.command("bench")(measure.bench)
app.command("inspect")(files.inspect)
app.command("verify")(files.verify)
app.command("info")(files.info)
app.command("demo")(make.demo)


def main() -> None:
    if sys.argv[1:2] in (["quantize"], ["tune"], ["compare"]):
        keep_memory()
    app()
