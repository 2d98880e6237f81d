"""A packed, or about to be packed, model as a transformers one that can be trained.

Quantizers sit on the planned matrices and begin with the codes and scales that are there; what is kept in int8 or
floats the student sees dequantized, and does not train; its linears' inputs are quantized as the engine does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tercet.calibrate import Quantized, dequantized
from tercet.modules.activations import quantize_activations
from tercet.program import Program
from tercet.quantizers import quantize_
from tercet.recipe import Activations, Planned
from tercet.tensor import TernaryTensor

__all__ = ["build_student", "vectors"]

SHORT = 512  # tokens of a window up to which plain attention's backward pass beats the fused one's on CPUs


def build_student(
    model: nn.Module,
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    activations: Activations,
    context: int,
) -> nn.Module:
    """The pretrained model, in place, as a student.

    Args:
        quantized: matrices and vectors by name; latent weights begin as near to the pretrained as their codes allow.
        context: tokens of a window.
    """
    parameters = dict(model.named_parameters())
    for name, tensor in quantized.items():
        if not isinstance(tensor, TernaryTensor):
            parameters[name].data.copy_(torch.from_numpy(dequantized(tensor)))
    if not torch.accelerator.is_available() and context <= SHORT:
        model.set_attn_implementation("eager")  # type: ignore[operator]
    model.requires_grad_(True)
    for name, planned in plan.items():
        if planned.quantizer is None:
            parameters[name].requires_grad_(False)
    configs = {name: planned.quantizer for name, planned in plan.items() if planned.quantizer is not None}
    starts = {name: tensor for name, tensor in quantized.items() if isinstance(tensor, TernaryTensor)}
    quantize_(model, configs, starts)
    groups = {name: planned.group_size for name, planned in plan.items() if _is_linear(model, name)}
    quantize_activations(model, groups, activations)
    return model


def vectors(student: nn.Module, program: Program) -> dict[str, NDArray[Any]]:
    """Norms and biases after training, float32, by name."""
    parameters = dict(student.named_parameters())
    names = [name for name, weight in program.weights.items() if weight.role == "vector"]
    return {name: np.array(parameters[name].detach().float().cpu().numpy()) for name in names}


def _is_linear(model: nn.Module, name: str) -> bool:
    return isinstance(model.get_submodule(name.rpartition(".")[0]), nn.Linear)
