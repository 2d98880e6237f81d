"""A recipe: which matrix becomes what, how it is calibrated and how the result is measured, as one YAML file."""

from tercet.recipe.planning import Planned
from tercet.recipe.reading import names
from tercet.recipe.recipe import Recipe
from tercet.recipe.settings import Calibrate, Evaluate, Rule

__all__ = ["Calibrate", "Evaluate", "Planned", "Recipe", "Rule", "names"]
