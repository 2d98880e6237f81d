"""One row: rates tried, full runs, and what the table says of them.

A row that was trained has not converged, and is marked, where

    the perplexity on the validation split fell by more than 10 % in the last quarter of the steps (of any run), or
    it is more than 100 times the original's on the test text.

So is one whose rate is the lowest or the highest that was tried: a better one may lie beyond.

The rate falls along a cosine in that quarter, so what still falls then would have gone on falling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tercet.compare import billm
from tercet.compare.entry import SHARE, Entry, at_rate, full, short
from tercet.compare.exam import Exam
from tercet.compare.workshop import Workshop
from tercet.errors import TercetError, TrainError

__all__ = ["best_rate", "row", "run", "try_rates"]

FALL = 0.10  # of the perplexity
LOST = 100  # times the original's perplexity
KEPT = ("step", "tokens", "loss", "cpu_seconds")  # of the journal


def try_rates(entry: Entry, shop: Workshop, exam: Exam) -> list[dict[str, Any]]:
    """Each rate after a short run: "lr", "perplexity" on the validation text (None where it failed), "error".

    Nothing where there is no choice.
    """
    found: list[dict[str, Any]] = []
    for lr in entry.rates if len(entry.rates) > 1 else ():
        try:
            made = shop.make(short(at_rate(entry.recipe, lr)), validate=False)
            found.append({"lr": lr, "perplexity": _number(exam.validated(made.folder)), "error": None})
        except TercetError as error:
            found.append({"lr": lr, "perplexity": None, "error": str(error)})
    return found


def best_rate(entry: Entry, tried: Sequence[Mapping[str, Any]]) -> float | None:
    """The rate of the full runs; None where nothing is trained. Raises TrainError where every rate failed."""
    if entry.recipe.train is None:
        return None
    if not tried:
        return entry.rates[0] if entry.rates else entry.recipe.train.lr
    sound = [(each["perplexity"], each["lr"]) for each in tried if each["perplexity"] is not None]
    if not sound:
        raise TrainError(f"no learning rate that was tried gives a model; the first: {tried[0]['error']}")
    return float(min(sound)[1])


def run(entry: Entry, lr: float | None, seed: int, shop: Workshop, exam: Exam) -> dict[str, Any]:
    """A model made and measured: what `Exam.packed` gives, costs, and the journal's losses. Raises TercetError."""
    if entry.billm:
        found = billm.measured(entry.recipe, shop, exam)
        return {"seed": seed, "lr": None, **found, "perplexity": _number(found["perplexity"]), "journal": []}
    recipe = entry.recipe if lr is None else full(at_rate(entry.recipe, lr), seed)
    made = shop.make(recipe, validate=True)
    found = exam.packed(made.folder)
    return {
        "seed": seed,
        "lr": lr,
        **found,
        "perplexity": _number(found["perplexity"]),
        "cpu_seconds": made.start_cpu_seconds + made.training_cpu_seconds,
        "start_cpu_seconds": made.start_cpu_seconds,
        "journal": [_brief(record) for record in made.journal],
    }


def row(entry: Entry, kept: Mapping[str, Any], original: float) -> dict[str, Any]:
    """What the table and the plots say of an entry.

    Args:
        kept: "rates", "runs" (by seed) and "error" (None, or the line of a failure), as far as they are there.
        original: the original's perplexity.
    """
    runs = [kept["runs"][seed] for seed in sorted(kept.get("runs", {}), key=int)][: entry.runs]
    train = entry.recipe.train
    found: dict[str, Any] = {
        "name": entry.name,
        "start": "own" if entry.recipe.calibrate is None else "calibrated",
        "trained": entry.trained,
        "tokens": 0 if train is None else train.steps * train.batch * train.accumulation * train.context,
        "state": "done" if len(runs) == entry.runs else "failed" if kept.get("error") else "not run",
        "error": kept.get("error"),
        "rates": kept.get("rates", []),
        "seeds": len(runs),
    }
    if runs:
        found["lr"] = runs[0]["lr"]
        names = ("perplexity", "kl", "top1_agreement", "bits_per_linear_weight", "bits_per_weight", "zero_share")
        found |= {name: _mean([each[name] for each in runs]) for name in (*names, "file_mb", "cpu_seconds")}
        found |= {"spread": _spread([each["perplexity"] for each in runs]), "runs_on": runs[0]["runs_on"]}
        found["against_original"] = None if found["perplexity"] is None else found["perplexity"] / original
        found["marks"] = _marks(entry, runs, found["against_original"], found["rates"] or ())
    return {**found, "runs": runs, "recipe": entry.recipe.model_dump(mode="json")}


def _marks(
    entry: Entry, runs: Sequence[Mapping[str, Any]], ratio: float | None, rates: Sequence[Mapping[str, Any]]
) -> list[str]:
    falls = [fall for each in runs if (fall := _late_fall(each["journal"])) is not None]
    marks = []
    if falls and max(falls) > FALL:
        marks.append(f"not converged: perplexity fell by {max(falls):.0%} in the last quarter")
    if ratio is None or ratio > LOST:
        lost = f"more than {LOST} times the original's perplexity"
        marks.append(f"not converged: {lost}" if entry.trained else lost)
    lr, tried = runs[0]["lr"], [each["lr"] for each in rates if each["perplexity"] is not None]
    if len(tried) > 1 and lr in (min(tried), max(tried)):
        marks.append(f"the {'lowest' if lr == min(tried) else 'highest'} rate tried was the best")
    return marks


def _late_fall(journal: Sequence[Mapping[str, Any]]) -> float | None:
    """By what share the validation's perplexity fell over the last quarter; None where it was not measured."""
    measured = {record["step"]: record["perplexity"] for record in journal if record.get("perplexity") is not None}
    last = journal[-1]["step"] if journal else 0
    before = [step for step in measured if 0 < step <= last - last // SHARE and step < last]
    if last not in measured or not before:
        return None
    return 1 - float(measured[last]) / float(measured[max(before)])


def _brief(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: record[name] for name in KEPT if name in record}
    if "evaluation" in record:
        kept["perplexity"] = record["evaluation"]["perplexity"]
    return kept


def _number(value: float) -> float | None:
    """None where JSON has no such number."""
    return value if math.isfinite(value) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> float | None:
    """Half the distance between the best and the worst; None for one value."""
    known = [value for value in values if value is not None]
    return (max(known) - min(known)) / 2 if len(known) > 1 else None
