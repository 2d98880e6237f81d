"""A recipe: which matrix becomes what, how it is calibrated and how the result is measured, as one YAML file."""

from tercet.recipe.planning import Planned
from tercet.recipe.reading import names
from tercet.recipe.recipe import Recipe
from tercet.recipe.settings import (
    Activations,
    Calibrate,
    ClipDistil,
    Distil,
    Divergence,
    Evaluate,
    Precision,
    Reconstruct,
    Rotate,
    Rule,
    Train,
)

__all__ = [
    "Activations",
    "Calibrate",
    "ClipDistil",
    "Distil",
    "Divergence",
    "Evaluate",
    "Planned",
    "Precision",
    "Recipe",
    "Reconstruct",
    "Rotate",
    "Rule",
    "Train",
    "names",
]
