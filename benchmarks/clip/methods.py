"""Every method of methods.yaml on the small CLIP: the same pictures, steps and evaluation for all.

    PYTHONPATH=benchmarks python benchmarks/clip/methods.py [--out DIR] [--only WORD]... [--steps N] [--list]

Results go to benchmarks/results/clip; stopped and called again, it goes on. Scores are of the test splits and of what
training cannot know: drawings of another artist, and scenes with pairs of colour and shape that it never showed. The
control is the original trained on for the same steps.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import differences
from tercet.cli.limits import keep_memory
from tercet.compare import Entry, Settings
from tercet.pipeline import Data
from tercet.recipe import Recipe
from tercet.recipe.reading import read

HERE = Path(__file__).parent
OUT = HERE.parent / "results" / "clip"
SOURCE = "clip-tiny"
LEARNT = ("fashion-mnist", "emoji", "scenes")
UNSEEN = ("emoji:unseen", "scenes:unseen")


def entries(steps: int | None = None) -> list[Entry]:
    _, data = read(HERE / "methods.yaml")
    if steps:
        data["common"]["train"]["steps"] = steps
    return [_entry(data["base"], data["common"], dict(row)) for row in data["rows"]]


def _entry(base: str, common: dict[str, Any], row: dict[str, Any]) -> Entry:
    quantizer = row.pop("quantizer", None)
    fields = differences.merged(Recipe.load(row.pop("scope", base)).model_dump(mode="json"), common)
    if quantizer is not None:
        own = {"quantizer": quantizer}
        fields["rules"] = [{**rule, **own} if rule["quantizer"] else rule for rule in fields["rules"]]
    return differences.entry(fields, row)


def main() -> None:
    keep_memory()
    options = differences.parser(__doc__, OUT).parse_args()
    command = " ".join(["PYTHONPATH=benchmarks python benchmarks/clip/methods.py", *sys.argv[1:]])
    data = Data(pictures=LEARNT, eval_pictures=(*LEARNT, *UNSEEN))
    settings = Settings(data, validation_pictures=LEARNT, threads=options.threads, command=command)
    differences.main(SOURCE, entries(options.steps), options, settings)


if __name__ == "__main__":
    main()
