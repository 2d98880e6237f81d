"""One row: rates tried, full runs, and what the table says of them.

A row that was trained has not converged, and is marked, where the headline

    became better by more than 10 % on the validation split in the last quarter of the steps (of any run), or
    is more than 100 times worse than the original's on the test split.

So is one whose rate is the lowest or the highest that was tried: a better one may lie beyond.

The rate falls along a cosine in that quarter, so what still becomes better then would have gone on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tercet.compare import billm, control
from tercet.compare.entry import SHARE, Entry, Way, at_rate, full, short
from tercet.compare.exam import Exam, Headline
from tercet.compare.workshop import Made, Workshop
from tercet.errors import TercetError, TrainError
from tercet.recipe import Recipe

__all__ = ["best_rate", "row", "run", "try_rates"]

GAIN = 0.10  # of the headline
LOST = 100  # times worse than the original's
KEPT = ("step", "tokens", "loss", "cpu_seconds")  # of the journal
FACTS = ("bits_per_linear_weight", "bits_per_weight", "ternary_share", "zero_share", "file_mb", "cpu_seconds")
WAYS: Mapping[Way, Callable[..., Made]] = {"billm": billm.made, "control": control.made}


def try_rates(entry: Entry, shop: Workshop, exam: Exam) -> list[dict[str, Any]]:
    """Each rate after a short run: "lr", "validation", the headline there (None where it failed), "error".

    Nothing where there is no choice.
    """
    found: list[dict[str, Any]] = []
    for lr in entry.rates if len(entry.rates) > 1 else ():
        try:
            made = _made(entry, short(at_rate(entry.recipe, lr)), shop, validate=False)
            found.append({"lr": lr, "validation": _number(exam.validated(made.model)), "error": None})
        except TercetError as error:
            found.append({"lr": lr, "validation": None, "error": str(error)})
    return found


def best_rate(entry: Entry, tried: Sequence[Mapping[str, Any]], headline: Headline) -> float | None:
    """The rate of the full runs; None where nothing is trained. Raises TrainError where every rate failed."""
    if entry.recipe.train is None:
        return None
    if not tried:
        return entry.rates[0] if entry.rates else entry.recipe.train.lr
    sound = [(each["validation"], each["lr"]) for each in tried if each["validation"] is not None]
    if not sound:
        raise TrainError(f"no learning rate that was tried gives a model; the first: {tried[0]['error']}")
    return float(headline.best(sound)[1])


def run(entry: Entry, lr: float | None, seed: int, shop: Workshop, exam: Exam) -> dict[str, Any]:
    """A model made and measured: scores, facts, costs, and the journal's losses. Raises TercetError."""
    recipe = entry.recipe if lr is None else full(at_rate(entry.recipe, lr), seed)
    made = _made(entry, recipe, shop, validate=True)
    facts = exam.original if made.facts is None else made.facts
    return {
        "seed": seed,
        "lr": lr,
        "scores": {name: _number(value) for name, value in exam.scores(made.model).items()},
        **{name: facts.get(name) for name in (*FACTS, "runs_on")},
        "cpu_seconds": made.start_cpu_seconds + made.training_cpu_seconds,
        "start_cpu_seconds": made.start_cpu_seconds,
        "journal": [_brief(record, exam) for record in made.journal],
    }


def row(entry: Entry, kept: Mapping[str, Any], headline: Headline, original: float) -> dict[str, Any]:
    """What the table and the plots say of an entry.

    Args:
        kept: "rates", "runs" (by seed) and "error" (None, or the line of a failure), as far as they are there.
        original: the original's headline.
    """
    runs = [kept["runs"][seed] for seed in sorted(kept.get("runs", {}), key=int)][: entry.runs]
    train = entry.recipe.train
    found: dict[str, Any] = {
        "name": entry.name,
        "start": _start(entry),
        "trained": entry.trained,
        "examples": 0 if train is None else train.steps * train.batch * train.accumulation,
        "state": "done" if len(runs) == entry.runs else "failed" if kept.get("error") else "not run",
        "error": kept.get("error"),
        "rates": kept.get("rates", []),
        "seeds": len(runs),
    }
    if runs:
        found |= {"lr": runs[0]["lr"], "runs_on": runs[0]["runs_on"]}
        scores = {name: [each["scores"][name] for each in runs] for name in runs[0]["scores"]}
        found["scores"] = {name: _mean(values) for name, values in scores.items()}
        found["spreads"] = {name: _spread(values) for name, values in scores.items()}
        found |= {name: _mean([each[name] for each in runs]) for name in FACTS}
        value = found["scores"][headline.name]
        found["against_original"] = None if value is None else value / original
        worse = math.inf if value is None else headline.times_worse(value, original)
        found["marks"] = [*_unconverged(entry, runs, headline, worse), *_edge(runs, found["rates"] or ())]
    return {**found, "runs": runs, "recipe": entry.recipe.model_dump(mode="json")}


def _made(entry: Entry, recipe: Recipe, shop: Workshop, *, validate: bool) -> Made:
    if entry.way == "recipe":
        return shop.make(recipe, validate=validate)
    return WAYS[entry.way](recipe, shop, validate=validate)


def _start(entry: Entry) -> str:
    if entry.way == "control":
        return "original"
    return "own" if entry.recipe.calibrate is None else "calibrated"


def _unconverged(entry: Entry, runs: Sequence[Mapping[str, Any]], headline: Headline, worse: float) -> list[str]:
    gains = [gain for each in runs if (gain := _late_gain(each["journal"], headline)) is not None]
    marks = []
    if gains and max(gains) > GAIN:
        marks.append(f"not converged: {headline.said} {headline.moves} by {max(gains):.0%} in the last quarter")
    if worse > LOST:
        lost = f"more than {LOST} times the original's" if headline.less else f"less than 1/{LOST} of the original's"
        marks.append(f"{'not converged: ' if entry.trained else ''}{lost} {headline.said}")
    return marks


def _edge(runs: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Any]]) -> list[str]:
    lr, tried = runs[0]["lr"], [each["lr"] for each in rates if each["validation"] is not None]
    if len(tried) > 1 and lr in (min(tried), max(tried)):
        return [f"the {'lowest' if lr == min(tried) else 'highest'} rate tried was the best"]
    return []


def _late_gain(journal: Sequence[Mapping[str, Any]], headline: Headline) -> float | None:
    """By what share the validation's headline became better in the last quarter; None where it was not measured."""
    measured = {record["step"]: record["validation"] for record in journal if record.get("validation") is not None}
    last = journal[-1]["step"] if journal else 0
    before = [step for step in measured if 0 < step <= last - last // SHARE and step < last]
    if last not in measured or not before or not measured[max(before)]:
        return None
    return headline.gain(float(measured[max(before)]), float(measured[last]))


def _brief(record: Mapping[str, Any], exam: Exam) -> dict[str, Any]:
    kept = {name: record[name] for name in KEPT if name in record}
    if record.get("evaluation"):
        kept["validation"] = exam.of_journal(record["evaluation"])
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
