"""The model card: README.md of a packed folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tercet import fsio
from tercet.artifact.folder import ModelFolder
from tercet.errors import FormatError
from tercet.pipeline.making import Making
from tercet.shown import in_markdown
from tercet.sources import Source

__all__ = ["append", "card", "title"]

MAX_FRONT = 1 << 16

USES = {
    "text": "    tercet generate DIR 'Once upon a time'",
    "pair": "    tercet index PICTURES -m DIR -o pictures.index",
}


def card(making: Making, provenance: str, facts: dict[str, Any]) -> str:
    """Markdown.

    Args:
        making: what was asked for; the recipe's file is recipe.json beside the card.
        provenance: how the weights came about.
        facts: of the stored file, as `tercet.artifact.save` gives them.
    """
    recipe = in_markdown(making.recipe.name)
    lines = [
        f"# {in_markdown(title(making.source))}, quantized by Tercet",
        "",
        f"Weights {in_markdown(provenance)}. Recipe: {recipe}, in full in `recipe.json`.",
        "",
        *_said(making.source),
        USES[making.model.kind],
        "    tercet verify DIR",
        "",
        f"SHA-256 of model.safetensors: `{facts['sha256']}`",
        "",
    ]
    return "\n".join(lines)


def title(source: Source) -> str:
    """What people call the model: its hub id, its package's name, or the name of its folder or file."""
    origin = source.origin
    named = origin.get("hub") or origin.get("folder")
    return str(named or (source.name if "package" in origin else origin.get("file", source.folder.name)))


def _said(source: Source) -> list[str]:
    """Lines with the licence and the base model, as far as the original's README.md says them."""
    about = _front_matter(source)
    base = source.origin.get("hub") or about.get("base_model")
    named = {"Base model": base, "Licence": about.get("license_name") or about.get("license")}
    lines = [f"{what}: {in_markdown(value[:200])}" for what, value in named.items() if isinstance(value, str) and value]
    return [". ".join(lines) + ".", ""] if lines else []


def _front_matter(source: Source) -> dict[str, Any]:
    """The YAML between two lines of dashes that begins a README.md of the hub; empty where there is none to read."""
    folder = ModelFolder(source.folder)
    if not folder.has("README.md"):
        return {}
    try:
        head, mark, _ = folder.text("README.md").removeprefix("---\n").partition("\n---")
        found = yaml.safe_load(head) if mark and len(head) <= MAX_FRONT and "&" not in head else None
    except (FormatError, yaml.YAMLError, ValueError, RecursionError):  # somebody's prose: no reason to make no model
        return {}
    return found if isinstance(found, dict) else {}


def append(folder: Path, section: str) -> None:
    """Adds a section to the card of a folder, in one step."""
    place = folder / "README.md"
    fsio.atomic_file(place, (place.read_text(encoding="utf-8").rstrip() + "\n\n" + section).encode())
