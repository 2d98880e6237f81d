"""The row of BiLLM: dense, in torch, with the bits that it would take.

Its Hessians are of what the recipe's calibration reads; what the recipe keeps in integers or floats is kept so, and
norms are left alone. Activations are float32: nothing of it is run by the engine, nor can be packed.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from tercet.calibrate import billm_dense, rounded
from tercet.compare.workshop import Made, Workshop
from tercet.errors import RecipeError
from tercet.modules.module import ProgramModule
from tercet.packing import pack
from tercet.pipeline.making import making
from tercet.recipe import Recipe

__all__ = ["made"]

RUNS_ON = "torch (dense, comparison only)"


def made(recipe: Recipe, shop: Workshop, *, validate: bool) -> Made:  # noqa: ARG001 - nothing is trained
    """Raises RecipeError without `calibrate`."""
    if recipe.calibrate is None:
        raise RecipeError(f"{recipe.name}: billm needs something to read for its Hessians; give the recipe `calibrate`")
    asked = making(shop.source, recipe)
    lesson, tensors, model = shop.lesson(asked), asked.source.tensors(), asked.model
    inputs = {part: lesson.inputs(part, recipe.calibrate, shop.watch) for part in model.parts}
    since = time.process_time()
    dense: dict[str, NDArray[np.float32]] = {}
    bits: dict[str, int] = {}
    for part, program in model.parts.items():
        found = billm_dense(
            program,
            tensors,
            {name: planned for name, planned in asked.plan.items() if name in program.weights},
            inputs[part],
            recipe.calibrate,
            progress=lambda i, n: shop.watch.step("binarize blocks", i, n),
        )
        dense |= found.weights
        bits |= found.bits
    seconds = time.process_time() - since
    weights = model.weights
    others = sum(
        pack(rounded(tensors[name], planned), planned.format).nbytes
        if (planned := asked.plan.get(name))
        else 4 * tensors[name].size
        for name in weights
        if name not in bits
    )
    size = others + sum(bits.values()) / 8
    facts = {
        "bits_per_linear_weight": sum(bits.values()) / sum(tensors[name].size for name in bits),
        "bits_per_weight": 8 * size / sum(tensors[name].size for name in weights),
        "ternary_share": None,
        "zero_share": None,
        "file_mb": (size + sum(len(data) for data in asked.source.tokenizer_files().values())) / 1e6,
        "runs_on": RUNS_ON,
    }
    module = ProgramModule(model, {name: dense[name] if name in dense else tensors[name] for name in weights})
    return Made(module.eval(), facts, seconds)
