"""The packed folder: tensors converted and saved with tokenizer, recipe and card, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tercet import artifact, fsio, sources
from tercet.calibrate import Quantized
from tercet.data.texts import Text
from tercet.pipeline.card import card
from tercet.pipeline.convert import convert
from tercet.pipeline.output_clamp import clipped
from tercet.program import Program
from tercet.progress import Progress
from tercet.recipe import Planned, Recipe

__all__ = ["checked_target", "folder_mb", "write"]


def checked_target(folder: Path) -> Path:
    """Refuses now what `artifact.save` would refuse after all the work. Raises StorageError."""
    fsio.check_folder(folder, replaces=artifact.is_artifact)
    return folder


def write(
    folder: Path,
    source: sources.Source,
    program: Program,
    recipe: Recipe,
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    text: Text | None,
    step: Progress,
) -> dict[str, float]:
    """Writes the folder; the relative error of each matrix. Raises RecipeError as `clipped`, StorageError.

    Args:
        quantized: every planned matrix, and vectors that are no longer the source's.
        text: what calibration read.
        step: called with ("pack", done, total).
    """
    packed, errors = convert(program, source.tensors(), plan, quantized, lambda i, n: step("pack", i, n))
    artifact.save(
        folder,
        model=clipped(source.config, program, plan),
        tensors=packed,
        tokenizer_files=source.tokenizer_files(),
        recipe=recipe.model_dump(mode="json"),
        card=lambda facts: card(source.name, recipe, text, facts),
        generation=source.generation(),
        source=source.origin,
        calibration={"text": None if text is None else text.origin, "error": errors},
    )
    return errors


def folder_mb(folder: Path) -> float:
    """10^6 bytes of all files in the folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
