"""Whether a demo's model is there already."""

from __future__ import annotations

import json
from pathlib import Path

from tercet.artifact import is_artifact
from tercet.recipe import Recipe
from tercet.sources import Source

__all__ = ["same"]


def same(source: Source, folder: Path, recipe: Recipe) -> bool:
    """Whether the folder was made by this recipe from this source."""
    if not is_artifact(folder):
        return False
    config = json.loads((folder / "config.json").read_bytes())
    written = json.loads((folder / "recipe.json").read_bytes())
    return bool(config["source"] == source.origin and written == recipe.model_dump(mode="json"))
