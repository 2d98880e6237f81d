"""The rows of a comparison of models of pictures and texts: a packed folder by the engine, float ones in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tercet.evaluate.contents import contents
from tercet.pipeline.clip.distil import Validation
from tercet.pipeline.clip.exam import Exam, examine
from tercet.pipeline.clip.model import ClipModel
from tercet.program.patches import patches
from tercet.runtime.pictures.encoder import Encoder
from tercet.train import TowersModule

__all__ = ["ClipRow", "examined", "markdown", "original", "table", "validation"]


@dataclass(frozen=True)
class ClipRow:
    """What was measured of one model.

    Attributes:
        name: "original", or the recipe's.
        ternary_share: ternary weights of all weights; zero_share: zeros of the ternary ones; None without any.
        file_mb: bytes / 10^6 of everything the model needs; the original's is that of float32 weights.
        scores: by source of pictures, shares of 1 (`tercet.pipeline.clip.exam`).
        runs_on: "torch" or "engine".
    """

    name: str
    ternary_share: float
    zero_share: float | None
    bits_per_weight: float
    file_mb: float
    scores: Mapping[str, Mapping[str, float]]
    runs_on: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examined(folder: Path, name: str, exams: Sequence[Exam], threads: int | None = None) -> ClipRow:
    """The row of a packed folder, run by the engine."""
    inside = contents(folder)
    scores: dict[str, Mapping[str, float]] = {}
    if exams:
        encoder = Encoder.open(folder, threads=threads)
        scores = {exam.name: examine(exam, encoder.encode_pixels, encoder.encode_ids) for exam in exams}
    return ClipRow(
        name=name,
        ternary_share=inside.ternary_share,
        zero_share=inside.zero_share,
        bits_per_weight=inside.bits_per_weight,
        file_mb=inside.file_mb,
        scores=scores,
        runs_on="engine",
    )


def original(
    model: ClipModel, exams: Sequence[Exam], tensors: Mapping[str, NDArray[np.float32]] | None = None
) -> ClipRow:
    """The row of the original in torch, float32; with `tensors`, of what it has been trained to."""
    name = "original" if tensors is None else "original, trained on"
    module = TowersModule(model.towers, tensors or model.tensors).eval()
    scores = validation(exams)(module) if exams else {}
    found: dict[str, dict[str, float]] = {exam.name: {} for exam in exams}
    for key, value in scores.items():
        source, _, measure = key.rpartition(" ")
        found[source][measure] = value
    return ClipRow(name, 0.0, None, 32.0, model.float_mb, found, "torch")


def validation(exams: Sequence[Exam]) -> Validation:
    """{"<source> <measure>": share} of a module, in torch: for journals, and for what is not packed."""

    @torch.no_grad()
    def measured(module: TowersModule) -> dict[str, float]:
        def pixels(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            cut = patches(rows, module.towers.pixels.patch)
            return module.encode_patches(torch.from_numpy(cut)).embedding.numpy()

        def ids(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return module.encode_ids(torch.from_numpy(rows)).embedding.numpy()

        return {f"{e.name} {name}": share for e in exams for name, share in examine(e, pixels, ids).items()}

    return measured


def table(rows: Sequence[ClipRow]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the cells of each row as text."""
    measures = [(source, name) for source, scores in rows[-1].scores.items() for name in scores]
    headings = ("model", *(f"{s} {n}" for s, n in measures), "ternary", "zeros", "bits/weight", "file MB", "runs on")
    lines = []
    for row in rows:
        shares = [f"{row.scores[source][name]:.4f}" for source, name in measures]
        zeros = "-" if row.zero_share is None else f"{row.zero_share:.1%}"
        facts = (f"{row.ternary_share:.1%}", zeros, f"{row.bits_per_weight:.2f}", f"{row.file_mb:.2f}", row.runs_on)
        lines.append((row.name, *shares, *facts))
    return headings, lines


def markdown(rows: Sequence[ClipRow]) -> str:
    headings, lines = table(rows)
    rule = ("---", *("--:" for _ in headings[1:]))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *lines)) + "\n"
