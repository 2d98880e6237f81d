"""What is said of a row: the rate that is chosen, and the marks, for scores of which less is better and for shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tercet.compare import Entry, row
from tercet.compare.exam import Headline
from tercet.compare.workshop import Made
from tercet.errors import RecipeError, TrainError
from tercet.recipe import Recipe

TRAIN = {"steps": 4, "batch": 2, "context": 16, "lr": 2e-3, "scale_lr": 1e-3, "norm_lr": 4e-3}
RECIPE = Recipe.parse({"rules": [{"quantizer": "seq"}], "calibrate": {"tokens": 512}, "distil": {}, "train": TRAIN})
PERPLEXITY, TOP1 = Headline("perplexity", less=True), Headline("colours top1", less=False)


class Bench:
    """In the place of workshop and exam: short runs whose validation score is told beforehand."""

    def __init__(self, scores: dict[float, float | None]) -> None:
        self.scores = scores
        self.made: list[Recipe] = []

    def make(self, recipe: Recipe, *, validate: bool) -> Made:
        assert recipe.train is not None
        assert not validate
        self.made.append(recipe)
        if self.scores[recipe.train.lr] is None:
            raise TrainError("the loss is not finite")
        return Made(Path(str(recipe.train.lr)), {}, 0.0)

    def validated(self, folder: Path) -> float:
        value = self.scores[float(folder.name)]
        assert value is not None
        return value


def test_the_rate_is_chosen_by_validation_after_a_quarter_of_the_steps() -> None:
    bench: Any = Bench({1e-3: 60.0, 2e-3: 50.0, 4e-3: float("inf"), 8e-3: None})
    entry = Entry("x", RECIPE, rates=(1e-3, 2e-3, 4e-3, 8e-3))
    tried = row.try_rates(entry, bench, bench)
    assert [each["validation"] for each in tried] == [60.0, 50.0, None, None]
    assert "not finite" in tried[3]["error"]
    assert row.best_rate(entry, tried, PERPLEXITY) == 2e-3
    assert row.best_rate(entry, tried, TOP1) == 1e-3
    for made, lr in zip(bench.made, entry.rates, strict=True):
        assert made.train is not None
        assert (made.train.steps, made.train.lr) == (1, lr)
        assert made.train.scale_lr == pytest.approx(lr / 2)
        assert made.train.norm_lr == pytest.approx(lr * 2)
        assert made.calibrate == RECIPE.calibrate
    with pytest.raises(TrainError, match="not finite"):
        row.best_rate(entry, tried[3:], PERPLEXITY)


def test_without_a_choice_nothing_is_tried() -> None:
    bench: Any = Bench({})
    one = Entry("x", RECIPE, rates=(5e-3,))
    assert row.try_rates(one, bench, bench) == []
    assert row.best_rate(one, [], PERPLEXITY) == 5e-3
    assert row.best_rate(Entry("x", RECIPE), [], PERPLEXITY) == TRAIN["lr"]
    rounded = Recipe.parse({"rules": [{"quantizer": "l2"}], "calibrate": None})
    assert row.best_rate(Entry("x", rounded), [], PERPLEXITY) is None


def test_a_rate_that_cannot_be_is_refused() -> None:
    nothing: Any = None
    with pytest.raises(RecipeError, match=r"train\.lr: "):
        row.run(Entry("x", RECIPE), -1.0, 0, nothing, nothing)
    flat = Recipe.parse({**RECIPE.model_dump(mode="json"), "train": {**TRAIN, "lr": 0.0}})
    with pytest.raises(RecipeError, match=r"train\.lr is 0"):
        row.run(Entry("x", flat), 1e-3, 0, nothing, nothing)


def run(headline: Headline, value: float | None, journal: dict[int, float], lr: float = 1.0) -> dict[str, Any]:
    return {
        **dict.fromkeys(row.FACTS, 1.0),
        "scores": {headline.name: value},
        "journal": [{"step": step, "validation": each} for step, each in journal.items()],
        "lr": lr,
        "runs_on": "engine",
    }


@pytest.mark.parametrize(
    ("journal", "perplexity", "marks"),
    [
        ({0: 500.0, 30: 100.0, 40: 91.0}, 95.0, []),
        ({0: 500.0, 30: 100.0, 40: 89.0}, 95.0, ["not converged: perplexity fell by 11% in the last quarter"]),
        ({20: 500.0, 30: 100.0, 35: 60.0, 40: 91.0}, 95.0, []),  # it began at step 30
        ({0: 500.0, 40: 10.0}, 95.0, []),  # not known
        ({0: 5e9, 30: 1e4, 40: 1e4}, 1e4, ["not converged: more than 100 times the original's perplexity"]),
        ({0: 500.0, 30: 1e4, 40: 1e4}, None, ["not converged: more than 100 times the original's perplexity"]),
    ],
)
def test_what_has_not_converged_is_marked(
    journal: dict[int, float], perplexity: float | None, marks: list[str]
) -> None:
    kept = {"runs": {"0": run(PERPLEXITY, perplexity, journal)}}
    found = row.row(Entry("x", RECIPE), kept, PERPLEXITY, original=20.0)
    assert found["marks"] == marks
    assert found["against_original"] == (perplexity and pytest.approx(perplexity / 20))


@pytest.mark.parametrize(
    ("journal", "share", "marks"),
    [
        ({0: 0.1, 30: 0.50, 40: 0.54}, 0.5, []),
        ({0: 0.1, 30: 0.50, 40: 0.40}, 0.5, []),  # it fell
        ({0: 0.1, 30: 0.50, 40: 0.56}, 0.5, ["not converged: colours top-1 rose by 12% in the last quarter"]),
        ({}, 0.004, ["not converged: less than 1/100 of the original's colours top-1"]),
        ({}, 0.0, ["not converged: less than 1/100 of the original's colours top-1"]),
        ({30: 0.0, 40: 0.5}, 0.5, []),  # no share of nothing
    ],
)
def test_of_shares_more_is_better(journal: dict[int, float], share: float, marks: list[str]) -> None:
    kept = {"runs": {"0": run(TOP1, share, journal)}}
    found = row.row(Entry("x", RECIPE), kept, TOP1, original=0.5)
    assert found["marks"] == marks
    assert found["against_original"] == pytest.approx(2 * share)


def test_scores_are_means_of_seeds_with_half_their_distance() -> None:
    kept = {"runs": {str(seed): run(TOP1, value, {}) for seed, value in enumerate((0.4, 0.7, 0.5))}}
    found = row.row(Entry("x", RECIPE, seeds=3), kept, TOP1, original=0.5)
    assert found["scores"] == {TOP1.name: pytest.approx(1.6 / 3)}
    assert found["spreads"] == {TOP1.name: pytest.approx(0.15)}
    first = row.row(Entry("x", RECIPE), kept, TOP1, original=0.5)
    assert (first["scores"], first["spreads"]) == ({TOP1.name: 0.4}, {TOP1.name: None})


@pytest.mark.parametrize(("lr", "mark"), [(1.0, ["lowest"]), (2.0, []), (3.0, ["highest"])])
def test_a_best_rate_at_the_edge_is_marked(lr: float, mark: list[str]) -> None:
    tried = [{"lr": each, "validation": 9.0, "error": None} for each in (1.0, 2.0, 3.0)]
    kept = {"runs": {"0": run(PERPLEXITY, 9.0, {}, lr)}, "rates": tried}
    marks = row.row(Entry("x", RECIPE), kept, PERPLEXITY, original=20.0)["marks"]
    assert marks == [f"the {each} rate tried was the best" for each in mark]
