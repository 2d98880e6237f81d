"""Rows of a comparison written as differences from one recipe."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tercet.cli.live import progress_bar
from tercet.compare import Entry, Settings, compare_methods
from tercet.recipe import Recipe

__all__ = ["entry", "main", "merged", "parser"]


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """`other` laid over `one`, mapping by mapping; None takes a mapping away."""
    laid = dict(one)
    for name, value in other.items():
        below = laid.get(name)
        laid[name] = merged(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return laid


def entry(common: dict[str, Any], row: dict[str, Any]) -> Entry:
    """A row: `name`, `rates`, `seeds` and `way` of the entry, and what its recipe has otherwise than `common`."""
    name, rates, seeds, way = row.pop("name"), row.pop("rates", ()), row.pop("seeds", 1), row.pop("way", "recipe")
    return Entry(
        name, Recipe.parse(merged(common, {"name": name, "description": "", **row}), name), tuple(rates), seeds, way
    )


def parser(about: str | None, out: Path) -> argparse.ArgumentParser:
    """The options that such a comparison has."""
    made = argparse.ArgumentParser(description=(about or "").splitlines()[0])
    made.add_argument("--out", type=Path, default=out)
    made.add_argument("--only", action="append", help="rows whose name has this word; may be given several times")
    made.add_argument("--steps", type=int, help="of every training, instead of the file's")
    made.add_argument("--threads", type=int)
    made.add_argument("--list", action="store_true", help="show the rows and do nothing")
    return made


def main(source: str, entries: Sequence[Entry], options: argparse.Namespace, settings: Settings) -> None:
    """Compares the rows that were asked for, and says how it goes."""
    chosen = [each for each in entries if not options.only or any(word in each.name for word in options.only)]
    if options.list:
        print("\n".join(f"{each.name}: rates {list(each.rates)}, seeds {each.runs}" for each in chosen))
        return
    with progress_bar() as progress:
        result = compare_methods(source, chosen, options.out, settings, progress=progress, tell=_tell)
    print(f"wrote {options.out / 'compare.md'}: {len(result['rows'])} rows")


def _tell(row: dict[str, Any]) -> None:
    what = row["error"] or f"{row['scores']}, lr {row['lr']}"
    print(f"{time.strftime('%H:%M:%S')} {row['name']}: {what}", file=sys.stderr, flush=True)
