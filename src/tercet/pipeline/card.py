"""The model card: README.md of a packed folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.data.texts import Text
from tercet.recipe import Recipe

__all__ = ["append", "card"]


def card(name: str, recipe: Recipe, text: Text | None, facts: dict[str, Any]) -> str:
    """Markdown.

    Args:
        name: the source's.
        recipe: what was asked for; its file is recipe.json beside the card.
        text: what calibration read; None where weights were only rounded.
        facts: of the stored file, as `tercet.artifact.save` gives them.
    """
    how = "rounded, without calibration" if text is None else f"calibrated on {text.name} (SHA-256 {text.sha256})"
    lines = [
        f"# {name}, quantized by Tercet",
        "",
        f"Weights {how}. Recipe: {recipe.name}, in full in `recipe.json`.",
        "",
        "    tercet generate DIR 'Once upon a time'",
        "    tercet verify DIR",
        "",
        f"SHA-256 of model.safetensors: `{facts['sha256']}`",
        "",
    ]
    return "\n".join(lines)


def append(folder: Path, section: str) -> None:
    """Adds a section to the card of a folder, in one step."""
    place = folder / "README.md"
    fsio.atomic_file(place, (place.read_text(encoding="utf-8").rstrip() + "\n\n" + section).encode())
