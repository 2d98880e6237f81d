"""Distillation as a stage of `quantize`: the calibrated model learns from the original, and is frozen again.

Checkpoints and journal lie in the cache, under a name made of all that decides the result: the same command goes on
from there.
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

from tercet import data, sources
from tercet.calibrate import Quantized
from tercet.data import spread, windows
from tercet.data.texts import choose
from tercet.errors import RecipeError
from tercet.evaluate import quality
from tercet.evaluate.originals import FloatModel
from tercet.modules.precision import uses_bfloat16
from tercet.pipeline.student import build_student, vectors
from tercet.program import Program
from tercet.progress import Progress
from tercet.quantizers import freeze
from tercet.recipe import Distil, Planned, Recipe, Train
from tercet.runtime import Tokenizer
from tercet.tensor import TernaryTensor
from tercet.train import Task, load_weights, train
from tercet.train.processes import Processes
from tercet.train.teacher import HeadOnly, stored_hidden, stored_logits

__all__ = ["Distilled", "Watch", "distil"]

Watch = Callable[[Mapping[str, Any], int], None]
VALIDATION = 4096  # tokens that perplexity is measured on while training
GENERATED = 1 << 18  # tokens the model writes where there is no text and no number is given


@dataclass(frozen=True)
class Distilled:
    """What training gives.

    Attributes:
        tensors: every planned matrix and every vector.
        folder: of the run.
        teacher_cpu_seconds: what a stored teacher took in this call, before training; little where the cache has its
            answers.
    """

    tensors: dict[str, Quantized]
    folder: Path
    teacher_cpu_seconds: float


def distil(
    source: sources.Source,
    program: Program,
    recipe: Recipe,
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    cache: Path,
    step: Progress,
    watch: Watch | None,
    processes: Processes,
    *,
    validate: bool = True,
) -> Distilled:
    """Trains, or goes on from what an earlier call left.

    Args:
        quantized: from calibration or rounding.
        cache: folder of runs.
        step: called with (what, done, total).
        watch: as of `quantize`; `step` where there is none.
        processes: that all call this; the first's result is whole.
        validate: measure the perplexity on the validation split of the default text, as `train.evaluate_every` says.

    Raises TrainError, StorageError and those of the quantizers.
    """
    settings, how = recipe.distil, recipe.train
    if not isinstance(settings, Distil):
        raise RecipeError(f"{recipe.name}: distils a model of pictures and texts; this is a language model")
    assert how is not None
    cut = _windows(source, program, settings, how)
    folder = cache / _name(source, recipe, cut)
    since = time.process_time()
    teacher, answers = None, dict[str, NDArray[Any]]()
    if settings.has_teacher:
        with processes.first_goes_first():
            teacher, answers = _teacher(source, settings, how, cut, cache, step)
    asked = time.process_time() - since
    arrays = {"ids": cut, **answers}
    # Rounded weights are no better start than the quantizer's own, which is the pretrained weight itself.
    known = quantized if recipe.calibrate else {n: t for n, t in quantized.items() if not isinstance(t, TernaryTensor)}
    student = build_student(source.pretrained(), plan, known, settings.activations, how.context)
    # Of a sharded student no process can run a whole forward pass by itself.
    validation = _validation(source, how.context) if validate and not processes.sharded else None
    result = train(
        Task(student, teacher, settings),
        arrays,
        how,
        folder,
        evaluate=None if validation is None else lambda task: _quality(task, validation, how),
        progress=lambda record: watch(record, how.steps) if watch else step("distil", int(record["step"]), how.steps),
    )
    if result.sharded and processes.first:
        student = build_student(source.pretrained(), plan, known, settings.activations, how.context)
        load_weights(Task(student, None, settings), folder)
    if not processes.first:
        return Distilled(dict(quantized), folder, asked)
    return Distilled({**quantized, **vectors(student, program), **freeze(student)}, folder, asked)


def _teacher(
    source: sources.Source, settings: Distil, how: Train, cut: NDArray[np.int64], cache: Path, step: Progress
) -> tuple[nn.Module | None, dict[str, NDArray[Any]]]:
    """What of the teacher stays in memory, and what it answered to each window where that is stored."""
    model, key = source.pretrained(), {"source": source.origin}
    bfloat16 = uses_bfloat16(how.precision, torch.device("cpu"))
    if bfloat16:
        _halve(model)

    def progress(done: int, total: int) -> None:
        step("ask the teacher", done, total)

    if settings.top_k:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return None, stored_logits(model, cut, settings.top_k, cache, key, progress)
    if settings.teacher == "stored":
        answers = stored_hidden(model, cut, cache, key, progress, bfloat16=bfloat16)
        return HeadOnly(model), answers
    return model, {}


def _halve(teacher: nn.Module) -> None:
    """Its linears in bfloat16: products are computed in it, so each step would cast them."""
    head = teacher.get_output_embeddings()  # type: ignore[operator]
    for module in teacher.modules():
        if isinstance(module, nn.Linear) and module is not head:
            module.weight.data = module.weight.data.bfloat16()


def _windows(source: sources.Source, program: Program, settings: Distil, how: Train) -> NDArray[np.int64]:
    text = choose(settings.text, "train", source, settings.tokens or GENERATED, how.seed)
    tokenizer = Tokenizer.open(source.folder)
    ids = tokenizer.encode(text.content, around=False)
    cut = windows(ids, min(how.context, program.context), settings.tokens, prefix=tokenizer.prefix())
    # No more than the run reads: a stored teacher answers to nothing else.
    read = how.steps * how.batch * how.accumulation
    return cut[np.sort(np.random.default_rng(how.seed).permutation(len(cut))[:read])]


def _validation(source: sources.Source, context: int) -> NDArray[np.int64] | None:
    content = data.default_text("validation")
    if content is None:
        return None
    tokenizer = Tokenizer.open(source.folder)
    ids = tokenizer.encode(content, around=False)
    return spread(windows(ids, context, prefix=tokenizer.prefix()), VALIDATION)


def _quality(task: nn.Module, cut: NDArray[np.int64], how: Train) -> dict[str, float]:
    """In the products that training computes with: a curve to choose by, three times as quick as float32."""
    assert isinstance(task, Task)
    device = next(task.student.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(how.precision, device)):
        return {"perplexity": quality(FloatModel(task.student), cut).perplexity}


def _name(source: sources.Source, recipe: Recipe, cut: NDArray[np.int64]) -> str:
    fields = recipe.model_dump(mode="json", exclude={"name", "description", "evaluate"})
    digest = hashlib.sha256(json.dumps([source.origin, fields], sort_keys=True).encode())
    digest.update(np.ascontiguousarray(cut).tobytes())
    return digest.hexdigest()[:32]
