"""The model card: README.md of a packed folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.pipeline.making import Making

__all__ = ["append", "card"]

USES = {
    "text": "    tercet generate DIR 'Once upon a time'",
    "pair": "    tercet index PICTURES -m DIR -o pictures.index",
}


def card(making: Making, told: str, facts: dict[str, Any]) -> str:
    """Markdown.

    Args:
        making: what was asked for; the recipe's file is recipe.json beside the card.
        told: how the weights came about.
        facts: of the stored file, as `tercet.artifact.save` gives them.
    """
    lines = [
        f"# {making.source.name}, quantized by Tercet",
        "",
        f"Weights {told}. Recipe: {making.recipe.name}, in full in `recipe.json`.",
        "",
        USES[making.model.kind],
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
