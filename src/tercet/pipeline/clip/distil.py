"""Distillation of both towers as a stage: the calibrated model learns from the original, and is frozen again.

Checkpoints and journal lie in the cache, under a name made of all that decides the result, as for language models.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tercet.calibrate import Quantized
from tercet.data.pairs import ClipData
from tercet.errors import RecipeError, TrainError
from tercet.pipeline.clip.student import build_student, vectors
from tercet.pipeline.distil import Watch
from tercet.program import Model
from tercet.progress import Progress
from tercet.quantizers import freeze
from tercet.recipe import ClipDistil, Planned, Recipe
from tercet.tensor import TernaryTensor
from tercet.train import ClipTask, TowersModule, train
from tercet.train.processes import Processes
from tercet.train.teacher import stored_embeddings

__all__ = ["Distilled", "Validation", "distil", "run_name", "train_on"]

Floats = NDArray[np.float32]
Validation = Callable[[TowersModule], Mapping[str, float]]


@dataclass(frozen=True)
class Distilled:
    """Attributes: tensors: every planned matrix and every vector; folder: of the run; teacher_cpu_seconds: what the
    teacher's embeddings took in this call, little where the cache has them."""

    tensors: dict[str, Quantized]
    folder: Path
    teacher_cpu_seconds: float


def distil(
    towers: Model,
    tensors: Mapping[str, Floats],
    origin: Mapping[str, Any],
    recipe: Recipe,
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    data: ClipData,
    cache: Path,
    step: Progress,
    watch: Watch | None = None,
    *,
    validate: Validation | None = None,
) -> Distilled:
    """Trains, or goes on from what an earlier call left.

    Args:
        tensors: of the original, by name.
        origin: what tells the original from others, plain JSON.
        quantized: from calibration or rounding.
        data: pairs, and what has no partner.
        cache: folder of runs and of the teacher's embeddings.
        step: called with (what, done, total). watch: with each record of the journal and the number of steps.
        validate: numbers for the journal, as `train.evaluate_every` says.

    Raises RecipeError where the recipe distils a language model, TrainError, StorageError.
    """
    settings, how = recipe.distil, recipe.train
    assert how is not None
    if not isinstance(settings, ClipDistil):
        raise RecipeError(f"{recipe.name}: distils a language model; a model of pictures and texts needs `kind: clip`")
    if Processes().sharded:
        raise TrainError("towers are not sharded; launch without --use_fsdp")
    teacher = TowersModule(towers, tensors).eval().requires_grad_(False)
    since, image, text = time.process_time(), None, None
    if settings.has_teacher and not settings.off:
        image, text = _embeddings(teacher, data, origin, cache, step)
    asked = time.process_time() - since
    # Rounded weights are no better start than the quantizer's own, which is the pretrained weight itself.
    known = quantized if recipe.calibrate else {n: t for n, t in quantized.items() if not isinstance(t, TernaryTensor)}
    student = build_student(towers, tensors, plan, known, settings.activations)
    folder = cache / run_name(origin, recipe, data)
    train(
        ClipTask(student, teacher if settings.off else None, settings),
        data.arrays(image, text),
        how,
        folder,
        identified={"pictures": data.digest},
        evaluate=None if validate is None else lambda task: validate(_student(task)),
        progress=lambda record: watch(record, how.steps) if watch else step("distil", int(record["step"]), how.steps),
    )
    return Distilled({**quantized, **vectors(student), **freeze(student)}, folder, asked)


def train_on(
    towers: Model, tensors: Mapping[str, Floats], recipe: Recipe, data: ClipData, folder: Path
) -> dict[str, Floats]:
    """The control: the floating-point model itself, trained by its own task for the recipe's steps; its tensors."""
    assert recipe.train is not None
    model = TowersModule(towers, tensors)
    settings = ClipDistil(kind="clip", task=1, fd=0, activations="a16")
    identified = {"pictures": data.digest}
    train(ClipTask(model, None, settings), data.arrays(None, None), recipe.train, folder, identified=identified)
    return {
        name: value.detach().numpy().reshape(towers.weights[name].shape) for name, value in model.named_parameters()
    }


def _embeddings(
    teacher: TowersModule, data: ClipData, origin: Mapping[str, Any], cache: Path, step: Progress
) -> tuple[Floats, Floats]:
    """Of every picture and every text, float32: not in the products training computes with, for it is done once."""
    key = {"source": dict(origin)}
    image = stored_embeddings(
        lambda rows: teacher.encode_patches(rows.float()).embedding,
        data.patches,
        cache,
        {**key, "tower": "image"},
        lambda i, n: step("ask the teacher about pictures", i, n),
    )
    text = stored_embeddings(
        lambda rows: teacher.encode_ids(rows).embedding,
        data.ids,
        cache,
        {**key, "tower": "text"},
        lambda i, n: step("ask the teacher about texts", i, n),
    )
    return image, text


def _student(task: nn.Module) -> TowersModule:
    assert isinstance(task, ClipTask)
    return task.student


def run_name(origin: Mapping[str, Any], recipe: Recipe, data: ClipData) -> str:
    """Of the run's folder: all that decides its result, and the threads that a run cannot change in the middle."""
    fields = recipe.model_dump(mode="json", exclude={"name", "description", "evaluate"})
    facts = [dict(origin), fields, data.digest, torch.get_num_threads()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
