"""Every method of methods.yaml on the small CLIP: the same pictures, steps and evaluation for all.

    PYTHONPATH=benchmarks python benchmarks/clip/methods.py [--source FOLDER] [--out DIR] [--only WORD]... [--steps N]
        [--list] [--table]

Each finished run is a file of its own in DIR/rows; stopped and called again, it goes on. Then methods.json and
methods.md have all rows that are there: the mean over seeds, ± their standard deviation, and the difference from the
original in points. Scores are of the packed folder by the engine, on the test splits and on what training cannot know:
drawings of another artist, and scenes with pairs of colour and shape that it never showed. The control is the original
trained on for the same steps, measured in torch. Models are chosen on the validation splits, not here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tercet
from differences import merged
from tercet import fsio, sources
from tercet.data.captioned import captioned
from tercet.data.pairs import ClipData, gather
from tercet.evaluate.machine import machine
from tercet.evaluate.originals import set_threads
from tercet.pipeline.clip.distil import train_on
from tercet.pipeline.clip.exam import Exam, prepare
from tercet.pipeline.clip.model import ClipModel
from tercet.pipeline.clip.rows import ClipRow, examined, original
from tercet.pipeline.clip.run import make
from tercet.recipe import Recipe
from tercet.recipe.reading import read

HERE = Path(__file__).parent
OUT = HERE.parent / "results" / "clip"
SOURCE = "clip-tiny"
LEARNT = ("fashion-mnist", "emoji", "scenes")
TESTED = (("fashion-mnist", "test"), ("emoji", "test"), ("scenes", "test"), ("emoji", "unseen"), ("scenes", "unseen"))


class Work:
    """What all runs share: the model, its exams, and data of a seed."""

    def __init__(self, source: str, out: Path) -> None:
        self.model, self.out = ClipModel.open(sources.resolve(source)), out
        self._data: dict[tuple[int, int], ClipData] = {}
        self._exams: list[Exam] = []

    @property
    def exams(self) -> list[Exam]:
        if not self._exams:
            self._exams = [_exam(self.model, name, split) for name, split in TESTED]
        return self._exams

    def data(self, recipe: Recipe) -> ClipData:
        """As many rows as the base trains, for calibration alone too: all starts are alike."""
        assert recipe.train is not None
        rows, seed = recipe.train.steps * recipe.train.batch * recipe.train.accumulation, recipe.train.seed
        if (rows, seed) not in self._data:
            pictures = [captioned(name) for name in LEARNT]
            self._data[rows, seed] = gather(pictures, self.model.reader(), rows, seed)
        return self._data[rows, seed]

    def run(self, recipe: Recipe, trained: Recipe, control: bool) -> ClipRow:
        """Makes and examines a model; `trained` says how much data there is."""
        data = self.data(trained)
        if control:
            folder = self.out / "work" / "control"
            if folder.exists():
                fsio.remove_folder(folder)
            return original(
                self.model, self.exams, train_on(self.model.towers, self.model.tensors, recipe, data, folder)
            )
        reads = recipe.calibrate is not None or recipe.distil is not None
        run = make(self.model, self.out / "work" / "model", recipe, data if reads else None)
        if run is not None:
            fsio.remove_folder(run)
        return examined(self.out / "work" / "model", recipe.name, self.exams)


def _exam(model: ClipModel, name: str, split: Any) -> Exam:
    return prepare(captioned(name, split), model.reader(), name=name if split == "test" else f"{name} {split}")


def recipes(steps: int | None = None) -> list[tuple[Recipe, Recipe, int, bool]]:
    """Each row: its recipe, the same with the common training, seeds, whether it is the control."""
    _, data = read(HERE / "methods.yaml")
    if steps:
        data["common"]["train"]["steps"] = steps
    return [_row(data["base"], data["common"], dict(row)) for row in data["rows"]]


def _row(base: str, common: dict[str, Any], row: dict[str, Any]) -> tuple[Recipe, Recipe, int, bool]:
    seeds, control = row.pop("seeds", 1), row.pop("control", False)
    quantizer, scope = row.pop("quantizer", None), row.pop("scope", base)
    fields = merged(Recipe.load(scope).model_dump(mode="json"), {"description": "", **common})
    if quantizer is not None:
        fields["rules"] = [
            {**rule, **({"quantizer": quantizer} if rule["quantizer"] else {})} for rule in fields["rules"]
        ]
    made = merged(fields, row)
    return Recipe.parse(made, row["name"]), Recipe.parse(fields, row["name"]), seeds, control


def _seeded(recipe: Recipe, seed: int) -> Recipe:
    return (
        recipe
        if recipe.train is None
        else recipe.model_copy(update={"train": recipe.train.model_copy(update={"seed": seed})})
    )


def _read(trained: Recipe) -> list[int]:
    """What decides which pictures are read."""
    assert trained.train is not None
    return [trained.train.steps, trained.train.batch, trained.train.accumulation, trained.train.seed]


def _key(work: Work, recipe: Recipe, trained: Recipe, control: bool) -> str:
    parts = [tercet.__version__, work.model.source.fingerprint, control]
    parts += [recipe.model_dump(mode="json", exclude={"name", "description"}), _read(trained)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _done(
    work: Work, name: str, recipe: Recipe, trained: Recipe, control: bool, seed: int, *, make: bool
) -> dict[str, Any] | None:
    recipe, trained = _seeded(recipe, seed), _seeded(trained, seed)
    path = work.out / "rows" / f"{_key(work, recipe, trained, control)}.json"
    if not path.exists() and not make:
        return None
    if not path.exists():
        since, cpu = time.monotonic(), time.process_time()
        row = work.run(recipe, trained, control).as_dict()
        times = {"seconds": time.monotonic() - since, "cpu_seconds": time.process_time() - cpu}
        made = {**row, "name": name, "seed": seed, **times}
        fsio.atomic_file(path, (json.dumps(made, indent=1) + "\n").encode())
        print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed}: {row['scores']}", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _mean(runs: Sequence[Mapping[str, Any]], base: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table: of each score the mean, the spread, and the difference from the original in points."""
    scores: dict[str, dict[str, Any]] = {}
    for source, measures in base["scores"].items():
        for measure, whole in measures.items():
            values = [run["scores"][source][measure] for run in runs]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            mean = float(np.mean(values))
            scores[f"{source} {measure}"] = {"mean": mean, "spread": spread, "points": 100 * (mean - whole)}
    kept = ("name", "ternary_share", "zero_share", "bits_per_weight", "file_mb", "runs_on")
    return {**{name: runs[0][name] for name in kept}, "seeds": len(runs), "scores": scores}


def _page(rows: Sequence[Mapping[str, Any]], missing: Sequence[str], command: str, about: Mapping[str, Any]) -> str:
    shown = [name for name in rows[0]["scores"] if name.endswith(("top1", "r1"))]
    headings = ("method", *shown, "ternary", "zeros", "bits/weight", "file MB", "seeds")
    lines = [headings, ("---", *("--:" for _ in headings[1:]))]
    for row in rows:
        cells = []
        for name in shown:
            score = row["scores"][name]
            spread = "" if score["spread"] is None else f" ± {100 * score['spread']:.2f}"
            cells.append(f"{100 * score['mean']:.2f}{spread} ({score['points']:+.2f})")
        zeros = "-" if row["zero_share"] is None else f"{row['zero_share']:.1%}"
        facts = (f"{row['ternary_share']:.1%}", zeros, f"{row['bits_per_weight']:.2f}", f"{row['file_mb']:.2f}")
        lines.append((row["name"], *cells, *facts, str(row["seeds"])))
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    how = "Percent, ± standard deviation over seeds, in brackets the points from the original. MB are 10^6 bytes."
    versions = f"Tercet {about['version']}, torch {about['packages']['torch']}"
    end = f"`{command}`, {versions}, {about['cpu']}, {about['threads']} threads."
    left = f"Not run: {'; '.join(missing)}.\n\n" if missing else ""
    return f"# Ternary CLIP: methods compared\n\n{table}\n\n{how}\n\n{left}{end}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", action="append", help="rows whose name has this word; may be given several times")
    parser.add_argument("--steps", type=int, help="of every training, instead of the file's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--list", action="store_true", help="show the rows and do nothing")
    parser.add_argument("--table", action="store_true", help="write the table of what is there and make nothing")
    asked = parser.parse_args()
    chosen = [row for row in recipes(asked.steps) if not asked.only or any(word in row[0].name for word in asked.only)]
    if asked.list:
        print("\n".join(f"{recipe.name}: {seeds} run(s)" for recipe, _, seeds, _ in chosen))
        return
    set_threads(asked.threads)
    work, rows = Work(asked.source, asked.out), list[dict[str, Any]]()
    base = {**original(work.model, work.exams).as_dict(), "name": "original"}
    rows.append(_mean([base], base))
    missing = list[str]()
    command, about = " ".join(["PYTHONPATH=benchmarks python benchmarks/clip/methods.py", *sys.argv[1:]]), machine()
    for recipe, trained, seeds, control in chosen:
        count = seeds if recipe.train is not None else 1
        made = (_done(work, recipe.name, recipe, trained, control, seed, make=not asked.table) for seed in range(count))
        runs = [run for run in made if run is not None]
        if runs:
            rows.append(_mean(runs, base))
        else:
            missing.append(recipe.name)
        result = {"rows": rows, "not_run": missing, "command": command, "machine": about}
        _write(asked.out, {**result, "date": time.strftime("%Y-%m-%d")})


def _write(out: Path, result: Mapping[str, Any]) -> None:
    fsio.atomic_file(out / "methods.json", (json.dumps(result, indent=1) + "\n").encode())
    page = _page(result["rows"], result["not_run"], result["command"], result["machine"])
    fsio.atomic_file(out / "methods.md", page.encode())


if __name__ == "__main__":
    main()
