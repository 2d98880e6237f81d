"""One row of a comparison before it is made: a recipe, the learning rates to try, how often it is run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import tercet
from tercet.errors import RecipeError
from tercet.recipe import Recipe, Train

__all__ = ["Entry", "Way", "at_rate", "full", "key", "short"]

Way = Literal["recipe", "billm", "control"]

SHARE = 4  # a rate is tried with one step in so many, and so much of the end tells whether a run has converged


@dataclass(frozen=True)
class Entry:
    """What is compared.

    Attributes:
        name: of the row; each has another.
        recipe: how it is made. Where it trains, `calibrate` says from where: None is the quantizer's own start.
        rates: learning rates to choose from; none, or one, is not tried before. `train.scale_lr` and `train.norm_lr`
            keep their ratio to `train.lr`.
        seeds: full runs, with seeds from that of the recipe on; one where nothing is trained.
        way: "recipe" for what it makes; "billm" for BiLLM on the matrices that it quantizes, in the place of its
            quantizers; "control" for the original itself, trained on as the recipe trains.
    """

    name: str
    recipe: Recipe
    rates: tuple[float, ...] = ()
    seeds: int = 1
    way: Way = "recipe"

    @property
    def trained(self) -> bool:
        return self.recipe.train is not None

    @property
    def runs(self) -> int:
        return self.seeds if self.trained else 1


def at_rate(recipe: Recipe, lr: float) -> Recipe:
    """The recipe with another learning rate. Raises RecipeError where its own is 0, and ratios to it say nothing."""
    train = _train(recipe)
    if not train.lr:
        raise RecipeError(f"{recipe.name}: train.lr is 0, so other rates have no ratio to it; give it one")
    by = lr / train.lr
    return _with(recipe, lr=lr, scale_lr=train.scale_lr * by, norm_lr=train.norm_lr * by)


def short(recipe: Recipe) -> Recipe:
    """A run of a quarter of the steps, with a cosine of its own."""
    return _with(recipe, steps=max(1, _train(recipe).steps // SHARE), checkpoint_every=None)


def full(recipe: Recipe, seed: int) -> Recipe:
    """The run of a seed, validated where its last quarter begins unless the recipe says when."""
    train = _train(recipe)
    every = train.evaluate_every or train.steps - train.steps // SHARE
    return _with(recipe, seed=train.seed + seed, evaluate_every=every)


def key(entry: Entry, source: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The name of the row's file: a hash of all that decides its result, but for how often it is run.

    Args:
        source: `Source.origin`. measured: how rows are measured.
    """
    # A field that is None says nothing: recipes may learn new words without losing what was measured.
    recipe = entry.recipe.model_dump(mode="json", exclude={"name", "description", "evaluate"}, exclude_none=True)
    parts = [tercet.__version__, dict(source), recipe, list(entry.rates), entry.way, dict(measured)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _train(recipe: Recipe) -> Train:
    assert recipe.train is not None
    return recipe.train


def _with(recipe: Recipe, **changed: Any) -> Recipe:
    """With these settings of training. Raises RecipeError where they are none."""
    train = {**_train(recipe).model_dump(mode="json"), **changed}
    return Recipe.parse({**recipe.model_dump(mode="json"), "train": train}, recipe.name)
