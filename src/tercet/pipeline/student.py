"""A packed, or about to be packed, model as a module that can be trained.

Quantizers sit on the planned matrices and begin with the codes and scales that are there. Matrices that are kept in
int8 or floats are dequantized and not trained; neither are logit scale and bias. Inputs of linears are rounded as the
engine rounds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.calibrate import Quantized, dequantized
from tercet.modules.module import ProgramModule
from tercet.program import Model
from tercet.quantizers import quantize_
from tercet.recipe import Activations, Planned
from tercet.tensor import TernaryTensor

__all__ = ["build_student", "vectors"]

FLOATS = ("f16", "f32")  # linears that read floats in the engine too


def build_student(
    model: Model,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    known: Mapping[str, Quantized],
    activations: Activations,
) -> ProgramModule:
    """The model with quantizers on it.

    Args:
        tensors: as pretrained; latent weights begin as near to them as the codes in `known` allow.
        known: matrices and vectors by name. A ternary one that is missing begins with its quantizer's own levels.
    """
    kept = {name: dequantized(tensor) for name, tensor in known.items() if not isinstance(tensor, TernaryTensor)}
    student = ProgramModule(model, {name: kept[name] if name in kept else tensors[name] for name in model.weights})
    for name, parameter in student.named_parameters():
        planned = plan.get(name)
        fixed = name in (model.scale, model.bias) or (planned is not None and planned.quantizer is None)
        parameter.requires_grad_(not fixed)
    configs = {name: planned.quantizer for name, planned in plan.items() if planned.quantizer is not None}
    quantize_(student, configs, {n: t for n, t in known.items() if isinstance(t, TernaryTensor)})
    groups = {name: planned.group_size for name, planned in plan.items() if planned.format not in FLOATS}
    student.round_activations(groups if activations != "a16" else {}, activations)
    return student


def vectors(student: ProgramModule) -> dict[str, NDArray[Any]]:
    """Norms, biases and other vectors after training, float32, by name."""
    names = [name for name, weight in student.description.weights.items() if weight.role == "vector"]
    return {name: np.array(student.weight(name).detach().float().cpu().numpy()) for name in names}
