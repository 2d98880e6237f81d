"""What a matrix that is not quantized by a rule's quantizer becomes: int8, int4 or floats; and plain rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tercet.errors import QuantizeError
from tercet.recipe import Planned
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["Quantized", "dequantized", "refuse_not_finite", "rounded"]

Quantized = TernaryTensor | IntTensor | NDArray[np.float16] | NDArray[np.float32]


def rounded(weight: NDArray[np.float32], planned: Planned, name: str = "a matrix") -> Quantized:
    """The weight as planned, without data: its quantizer alone, or what it is kept as.

    Raises QuantizeError, with the matrix's `name`, where values do not fit the format.
    """
    try:
        return _rounded(weight, planned)
    except QuantizeError as error:
        raise QuantizeError(f"{name}: {error}") from None


def refuse_not_finite(weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Raises QuantizeError, with the weight's name, where a value is infinite or no number."""
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise QuantizeError(f"{name}: weight has values that are not finite; mend the model first")


def _rounded(weight: NDArray[np.float32], planned: Planned) -> Quantized:
    if planned.quantizer is not None:
        quantizer = planned.quantizer.build()
        return quantizer.freeze(quantizer.start(torch.from_numpy(weight)))
    if planned.keep in ("int8", "int4"):
        return IntTensor.quantize(weight, 8 if planned.keep == "int8" else 4, planned.group_size)
    if not np.isfinite(weight).all():
        raise QuantizeError("weight has values that are not finite; mend the model first")
    if planned.keep == "float32":
        return weight
    if np.abs(weight).max(initial=0) > 65504:
        raise QuantizeError("weight has values beyond float16's 65504; keep it as float32")
    return weight.astype(np.float16)


def dequantized(tensor: Quantized) -> NDArray[np.float32]:
    """float32[out, in] of what `rounded` and `calibrate` return."""
    return tensor.astype(np.float32) if isinstance(tensor, np.ndarray) else tensor.dequantize()
