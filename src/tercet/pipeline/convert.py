"""A source's tensors as the folder stores them, and how far each matrix moved."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from tercet.calibrate import Quantized, dequantized
from tercet.packing import PackedTensor, pack
from tercet.program import Model
from tercet.recipe import Planned

__all__ = ["convert"]


def convert(
    model: Model,
    tensors: Mapping[str, NDArray[np.float32]],
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    progress: Callable[[int, int], None],
) -> tuple[dict[str, PackedTensor | NDArray[np.float32]], dict[str, float]]:
    """Every tensor the model reads, packed, and the relative error |W - packed W| / |W| of each matrix.

    Vectors are stored as `quantized` has them (calibration fits the last norm), else as they were.
    """
    packed: dict[str, PackedTensor | NDArray[np.float32]] = {}
    errors: dict[str, float] = {}
    for done, name in enumerate(model.weights, start=1):
        weight = tensors[name]
        if name in plan:
            packed[name] = pack(quantized[name], plan[name].format)
            length = float(np.linalg.norm(weight))
            errors[name] = float(np.linalg.norm(weight - dequantized(quantized[name]))) / length if length else 0.0
        else:
            packed[name] = dequantized(quantized[name]) if name in quantized else weight.astype(np.float32)
        progress(done, len(model.weights))
    return packed, errors
