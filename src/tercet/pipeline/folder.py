"""The packed folder: tensors converted and saved with tokenizer, recipe and card, whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tercet import artifact, fsio
from tercet.calibrate import Quantized
from tercet.pipeline.card import card
from tercet.pipeline.convert import convert
from tercet.pipeline.lessons.lesson import Lesson
from tercet.pipeline.making import Making, Watch

__all__ = ["checked_target", "folder_mb", "write"]


def checked_target(folder: Path) -> Path:
    """Refuses now what `artifact.save` would refuse after all the work. Raises StorageError."""
    fsio.check_folder(folder, replaces=artifact.is_artifact)
    return folder


def write(
    folder: Path, making: Making, lesson: Lesson, quantized: Mapping[str, Quantized], watch: Watch
) -> dict[str, float]:
    """Writes the folder; the relative error of each matrix. Raises StorageError.

    Args:
        quantized: every planned matrix, and vectors that are no longer the source's.
    """
    source, recipe = making.source, making.recipe
    packed, errors = convert(
        making.student, source.tensors(), making.plan, quantized, lambda i, n: watch.step("pack", i, n)
    )
    artifact.save(
        folder,
        model=making.config,
        tensors=packed,
        tokenizer_files=source.tokenizer_files(),
        recipe=recipe.model_dump(mode="json"),
        card=lambda facts: card(making, lesson.provenance(), facts),
        generation=source.generation() if making.model.text.gives == "logits" else {},
        source=source.origin,
        calibration={**lesson.record(), "error": errors},
    )
    return errors


def folder_mb(folder: Path) -> float:
    """10^6 bytes of all files in the folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
