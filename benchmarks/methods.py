"""`make compare`: every method of methods.yaml on SmolLM2-135M, with the same data, tokens and evaluation.

    python benchmarks/methods.py [--out DIR] [--only WORD]... [--steps N] [--list]

Results go to benchmarks/results/compare; stopped and called again, it goes on. What `tercet compare` does with recipe
files this does with rows that are small differences from one recipe.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import differences
from tercet import sources
from tercet.cli.limits import keep_memory
from tercet.compare import Entry, Settings
from tercet.recipe import Recipe
from tercet.recipe.reading import read

HERE = Path(__file__).parent
ROWS = HERE / "methods.yaml"
OUT = HERE / "results" / "compare"
SOURCE = "smollm2"


def entries(steps: int | None = None) -> list[Entry]:
    _, data = read(ROWS)
    common = differences.merged(Recipe.load(data["base"]).model_dump(mode="json"), data["common"])
    if steps:
        common["train"]["steps"] = steps
    blocks = len(sources.resolve(SOURCE).model.text.blocks)
    return [_entry(common, dict(row), blocks) for row in data["rows"]]


def _entry(common: dict[str, Any], row: dict[str, Any], blocks: int) -> Entry:
    linears, outer, rules = row.pop("linears", None), row.pop("outer", None), list(common["rules"])
    if linears is not None:
        rules[0] = {**rules[0], "quantizer": linears}
    if outer is not None:
        kept = [{"match": f"model.layers.{index}.*", "role": "linear", "keep": outer} for index in (0, blocks - 1)]
        rules = [*kept, *rules]
    return differences.entry({**common, "rules": rules}, row)


def main() -> None:
    keep_memory()
    options = differences.parser(__doc__, OUT).parse_args()
    command = " ".join(["make compare" if options.out == OUT else "python benchmarks/methods.py", *sys.argv[1:]])
    differences.main(SOURCE, entries(options.steps), options, Settings(threads=options.threads, command=command))


if __name__ == "__main__":
    main()
