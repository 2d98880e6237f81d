"""The row of BiLLM: dense, in torch, with the bits that it would take.

Its Hessians are of the tokens of the recipe's calibration; what the recipe keeps in integers or floats is kept so, and
norms are left alone. Activations are float32: nothing of it is run by the engine, nor can be packed.
"""

from __future__ import annotations

import time
from typing import Any

from tercet.calibrate import billm_dense, rounded
from tercet.compare.exam import Exam
from tercet.compare.workshop import Workshop
from tercet.errors import RecipeError
from tercet.evaluate.originals import ModuleLogits
from tercet.modules.module import ProgramModule
from tercet.packing import pack
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.making import making
from tercet.recipe import Recipe

__all__ = ["measured"]

RUNS_ON = "torch (dense, comparison only)"


def measured(recipe: Recipe, shop: Workshop, exam: Exam) -> dict[str, Any]:
    """What `Exam.packed` says of a folder, and "cpu_seconds". Raises RecipeError without `calibrate`."""
    if recipe.calibrate is None:
        raise RecipeError("billm needs a text for its Hessians; give the recipe `calibrate`")
    made = making(shop.source, recipe)
    source, program, plan = made.source, made.model.text, made.plan
    cut = lesson_for(made, shop.data, shop.threads).inputs("text", recipe.calibrate, shop.watch)
    since, tensors = time.process_time(), source.tensors()
    dense = billm_dense(
        program, tensors, plan, cut, recipe.calibrate, progress=lambda i, n: shop.watch.step("binarize blocks", i, n)
    )
    seconds = time.process_time() - since
    module = ProgramModule(made.model, {name: dense.weights.get(name, tensors[name]) for name in program.weights})
    others = sum(
        pack(rounded(tensors[name], plan[name]), plan[name].format).nbytes if name in plan else 4 * tensors[name].size
        for name in program.weights
        if name not in dense.bits
    )
    size = others + sum(dense.bits.values()) / 8
    weights = sum(tensors[name].size for name in program.weights)
    return {
        **exam.quality(ModuleLogits(module.eval())),
        "bits_per_linear_weight": dense.bits_per_weight,
        "bits_per_weight": 8 * size / weights,
        "zero_share": None,
        "file_mb": (size + sum(len(data) for data in source.tokenizer_files().values())) / 1e6,
        "runs_on": RUNS_ON,
        "cpu_seconds": seconds,
    }
