"""The comparison: every entry's first run, then the second seeds, and so on; what is finished is on the disk.

    DIR/rows/<key>.json    an entry's rates and runs, written as each is finished; the key hashes all that decides them
    DIR/compare.json       everything, for machines; compare.md: the table; *.png: see `plots`
    DIR/.work/             runs, the model at hand, what the exam keeps; removed when no row is missing

Stopped at any moment and called again, it goes on with what is missing, failed rows included. compare.json and
compare.md are written after each run, so a comparison that was stopped shows what it had. What kind of model it is
matters to its exam alone.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet import fsio, sources
from tercet.compare.choose import exam_for
from tercet.compare.entry import Entry, key
from tercet.compare.exam import Exam
from tercet.compare.lloyd import kmeans_errors
from tercet.compare.plots import plots, refuse_without_matplotlib
from tercet.compare.row import best_rate, row, run, try_rates
from tercet.compare.settings import Settings
from tercet.compare.table import page
from tercet.compare.workshop import Workshop
from tercet.errors import TercetError
from tercet.evaluate.machine import machine
from tercet.evaluate.originals import set_threads
from tercet.pipeline.making import Watch
from tercet.progress import Progress, silent

__all__ = ["compare_methods"]

Row = dict[str, Any]
WORK = ".work"


def compare_methods(
    source: str | sources.Source,
    entries: Sequence[Entry],
    out: str | Path,
    settings: Settings | None = None,
    *,
    progress: Progress | None = None,
    tell: Callable[[Row], None] | None = None,
) -> dict[str, Any]:
    """Makes and measures all entries; what DIR/compare.json holds.

    Args:
        source: as of `quantize`.
        out: DIR.
        settings: what all rows have in common.
        progress: called with (what, done, total).
        tell: called with a row of the table after each of its runs.

    Raises TercetError where nothing can be compared; a row that fails is a row of the table.
    """
    _check(entries)
    settings, step, place = settings or Settings(), progress or silent, Path(out)
    origin = source if isinstance(source, sources.Source) else sources.resolve(source)
    set_threads(settings.threads)
    exam = exam_for(origin, settings, entries[0].recipe, place / WORK, step)
    _check_choice(entries, exam)
    shop = Workshop(origin, place / WORK, exam.data, Watch(step), settings.threads)
    facts = _facts(origin, exam, settings.command or f"compare_methods({origin.name!r}, ...)")
    comparison = _Comparison(entries, place, exam, shop, facts)
    try:
        comparison.run(step, tell)
    finally:
        comparison.write()
        plots(comparison.result, place)
    if (place / WORK).exists() and all(each["state"] == "done" for each in comparison.result["rows"]):
        fsio.remove_folder(place / WORK)
    return comparison.result


class _Comparison:
    """Attributes: result: what compare.json holds, as of the last `write`."""

    def __init__(
        self, entries: Sequence[Entry], out: Path, exam: Exam, shop: Workshop, facts: Mapping[str, Any]
    ) -> None:
        self.entries, self.out, self.exam, self.shop = entries, out, exam, shop
        self.result = dict(facts)
        origin = shop.source.origin
        self.files = [out / "rows" / f"{key(entry, origin, exam.identity)}.json" for entry in entries]
        self.kept = [_read(file) for file in self.files]

    def run(self, step: Progress, tell: Callable[[Row], None] | None) -> None:
        """Everything that is missing."""
        missing = self.missing()
        for done, (turn, index) in enumerate(missing):
            step("runs", done, len(missing))
            self.advance(turn, index)
            self.write()
            if tell:
                tell(self.result["rows"][index])
            step("runs", done + 1, len(missing))

    def missing(self) -> list[tuple[int, int]]:
        """(seed, index of the entry) of what has to be run: all first runs before any second one."""
        turns = range(max(entry.runs for entry in self.entries))
        every = [(turn, index) for turn in turns for index, entry in enumerate(self.entries) if turn < entry.runs]
        return [(turn, index) for turn, index in every if str(turn) not in self.kept[index]["runs"]]

    def advance(self, turn: int, index: int) -> None:
        """One more run of an entry onto the disk, or its failure noted."""
        entry, kept, file = self.entries[index], self.kept[index], self.files[index]
        try:
            tried = kept["rates"]
            if tried is None:
                kept["rates"] = tried = try_rates(entry, self.shop, self.exam)
                if tried:
                    _keep(file, entry, kept)
            lr = best_rate(entry, tried, self.exam.headline)
            kept["runs"][str(turn)] = run(entry, lr, turn, self.shop, self.exam)
            kept["error"] = None
            _keep(file, entry, kept)
        except TercetError as error:
            kept["error"] = str(error)

    def write(self) -> None:
        """compare.json and compare.md. Raises StorageError."""
        headline = self.exam.headline
        original = self.result["original"]["scores"][headline.name]
        pairs = zip(self.entries, self.kept, strict=True)
        self.result["rows"] = [row(entry, kept, headline, original) for entry, kept in pairs]
        text = json.dumps(self.result, indent=1, allow_nan=False) + "\n"
        fsio.atomic_file(self.out / "compare.json", text.encode())
        fsio.atomic_file(self.out / "compare.md", page(self.result).encode())


def _check(entries: Sequence[Entry]) -> None:
    refuse_without_matplotlib()
    names = [entry.name for entry in entries]
    twice = {name for name in names if names.count(name) > 1}
    if not names or twice:
        what = f"two rows are called {min(twice)!r}; name them apart" if twice else "nothing to compare; give recipes"
        raise TercetError(what)
    idle = [entry.name for entry in entries if entry.way == "control" and not entry.trained]
    if idle:
        raise TercetError(f"{idle[0]}: a control is trained; give its recipe `distil` and `train`")


def _check_choice(entries: Sequence[Entry], exam: Exam) -> None:
    choosing = [entry.name for entry in entries if entry.trained and len(entry.rates) > 1]
    if choosing and not exam.chooses:
        raise TercetError(f"{choosing[0]}: several learning rates, and no validation pictures to choose by; give some")


def _read(file: Path) -> Row:
    """What is finished of an entry."""
    found: Row = {"rates": None, "runs": {}, "error": None}
    try:
        return found | {name: value for name, value in json.loads(file.read_bytes()).items() if name in found}
    except (OSError, ValueError, AttributeError):
        return found


def _keep(file: Path, entry: Entry, kept: Row) -> None:
    content = {"name": entry.name, "rates": kept["rates"], "runs": kept["runs"]}
    fsio.atomic_file(file, (json.dumps(content, allow_nan=False) + "\n").encode())


def _facts(source: sources.Source, exam: Exam, command: str) -> Row:
    """What compare.json holds beside the rows."""
    name, original = exam.headline.name, dict(exam.original)
    value = original["scores"][name]
    if not (math.isfinite(value) and value > 0):
        raise TercetError(f"the original's own {name} is {value:g}: nothing can be compared with it; measure on others")
    return {
        "source": source.origin,
        "headline": {"name": name, "less_is_better": exam.headline.less},
        "shown": list(exam.shown),
        "original": original,
        "rows": [],
        "kmeans_relative_error": kmeans_errors(source),
        "protocol": exam.protocol,
        "command": command,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
