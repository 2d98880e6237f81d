"""`make compare`: every method of methods.yaml on SmolLM2-135M, with the same data, tokens and evaluation.

    python benchmarks/methods.py [--out DIR] [--only WORD]... [--steps N] [--list]

Results go to benchmarks/results/compare; stopped and called again, it goes on. What `tercet compare` does with recipe
files this does with rows that are small differences from one recipe.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from differences import merged
from tercet import families, sources
from tercet.cli.limits import keep_memory
from tercet.cli.live import progress_bar
from tercet.compare import Entry, compare_methods
from tercet.recipe import Recipe
from tercet.recipe.reading import read

HERE = Path(__file__).parent
ROWS = HERE / "methods.yaml"
OUT = HERE / "results" / "compare"
SOURCE = "smollm2"


def entries(steps: int | None = None) -> list[Entry]:
    _, data = read(ROWS)
    base = Recipe.load(data["base"]).model_dump(mode="json")
    blocks = len(families.model(sources.resolve(SOURCE).config).text.blocks)
    common = merged(base, data["common"])
    if steps:
        common["train"]["steps"] = steps
    return [_entry(common, dict(row), blocks) for row in data["rows"]]


def _entry(common: dict[str, Any], row: dict[str, Any], blocks: int) -> Entry:
    name, rates, seeds = row.pop("name"), row.pop("rates", []), row.pop("seeds", 1)
    billm, linears, outer = row.pop("billm", False), row.pop("linears", None), row.pop("outer", None)
    fields = merged(common, {"name": name, "description": "", **row})
    if linears is not None:
        fields["rules"] = [{**fields["rules"][0], "quantizer": linears}, *fields["rules"][1:]]
    if outer is not None:
        kept = [{"match": f"model.layers.{index}.*", "role": "linear", "keep": outer} for index in (0, blocks - 1)]
        fields["rules"] = [*kept, *fields["rules"]]
    return Entry(name, Recipe.parse(fields, name), tuple(rates), seeds, billm)


def _tell(row: dict[str, Any]) -> None:
    what = row["error"] if row["error"] else f"perplexity {row['perplexity']:.4g}, lr {row['lr']}"
    print(f"{time.strftime('%H:%M:%S')} {row['name']}: {what}", file=sys.stderr, flush=True)


def main() -> None:
    keep_memory()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--only", action="append", help="rows whose name has this word in it; may be given several times"
    )
    parser.add_argument("--steps", type=int, help="of every training, instead of the file's")
    parser.add_argument("--list", action="store_true", help="show the rows and do nothing")
    options = parser.parse_args()
    chosen = [e for e in entries(options.steps) if not options.only or any(word in e.name for word in options.only)]
    if options.list:
        print("\n".join(f"{entry.name}: rates {list(entry.rates)}, seeds {entry.runs}" for entry in chosen))
        return
    command = " ".join(["make compare" if options.out == OUT else "python benchmarks/methods.py", *sys.argv[1:]])
    with progress_bar() as progress:
        result = compare_methods(SOURCE, chosen, options.out, command=command, progress=progress, tell=_tell)
    print(f"wrote {options.out / 'compare.md'}: {len(result['rows'])} rows")


if __name__ == "__main__":
    main()
