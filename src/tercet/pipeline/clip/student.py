"""Two towers, packed or about to be, as a module that can be trained: `tercet.pipeline.student` for pictures and texts.

Trained are ternary matrices, norms, biases and the class row. What is kept in int8 or floats the student sees
dequantized; logit scale and bias are the original's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.calibrate import Quantized, dequantized
from tercet.errors import RecipeError
from tercet.program import Model
from tercet.quantizers import quantize_
from tercet.recipe import Activations, Planned
from tercet.tensor import TernaryTensor
from tercet.train import TowersModule

__all__ = ["build_student", "check", "vectors"]

FLOATS = ("f16", "f32")  # linears that read floats in the engine too


def check(plan: Mapping[str, Planned]) -> None:
    """Raises RecipeError where a quantizer clips results: towers' linears are not clipped."""
    for name, planned in plan.items():
        if planned.quantizer and planned.quantizer.output_clip is not None:
            raise RecipeError(
                f"{name}: {planned.quantizer.name} clips what linears return, which towers do not; "  # type: ignore[attr-defined]
                "use another quantizer"
            )


def build_student(
    towers: Model,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    known: Mapping[str, Quantized],
    activations: Activations,
) -> TowersModule:
    """The towers with quantizers on them.

    Args:
        tensors: as pretrained; latent weights begin as near to them as the codes in `known` allow.
        known: matrices by name. A ternary one that is missing begins with its quantizer's own levels.
    """
    kept = {name: dequantized(tensor) for name, tensor in known.items() if not isinstance(tensor, TernaryTensor)}
    student = TowersModule(towers, {**{name: tensors[name] for name in towers.weights}, **kept})
    for name, parameter in student.named_parameters():
        planned = plan.get(name)
        fixed = name in (towers.scale, towers.bias) or (planned is not None and planned.quantizer is None)
        parameter.requires_grad_(not fixed)
    configs = {name: planned.quantizer for name, planned in plan.items() if planned.quantizer is not None}
    quantize_(student, configs, {n: t for n, t in known.items() if isinstance(t, TernaryTensor)})
    groups = {name: planned.group_size for name, planned in plan.items() if planned.format not in FLOATS}
    student.quantize_activations(groups if activations != "a16" else {}, activations)
    return student


def vectors(student: TowersModule) -> dict[str, NDArray[Any]]:
    """Norms, biases and other vectors after training, float32, by name."""
    parameters = dict(student.named_parameters())
    names = [name for name, weight in student.towers.weights.items() if weight.role == "vector"]
    return {name: np.array(parameters[name].detach().float().cpu().numpy()) for name in names}
