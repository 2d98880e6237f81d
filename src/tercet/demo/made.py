"""Whether a demo's model is there already."""

from __future__ import annotations

from pathlib import Path

from tercet.artifact import CONFIG, RECIPE, ModelFolder, is_artifact
from tercet.recipe import Recipe
from tercet.sources import Source

__all__ = ["same"]


def same(source: Source, folder: Path, recipe: Recipe) -> bool:
    """Whether the folder was made by this recipe from this source."""
    if not is_artifact(folder):
        return False
    files = ModelFolder(folder)
    config, written = files.json(CONFIG), files.json(RECIPE)
    return bool(config["source"] == source.origin and written == recipe.model_dump(mode="json"))
