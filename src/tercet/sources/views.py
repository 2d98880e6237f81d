"""Tensors as our programs take them: views of what transformers stores.

A convolution's kernel becomes the matrix of the same bytes, a probe or a scale a vector. nn.MultiheadAttention keeps
q, k and v as one matrix `in_proj_weight`; here each third is a matrix of its own. Nothing is copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError
from tercet.program import Model

__all__ = ["views"]

Floats = NDArray[np.float32]
THIRDS = "qkv"


def views(model: Model, stored: Mapping[str, Floats]) -> Mapping[str, Floats]:
    """Each tensor a model reads, by our name and in our shape, looked up when it is asked for.

    Args:
        stored: by transformers' names.

    Raises FormatError, when it is asked for, for a tensor that is not there or has another size.
    """
    return _Views(stored, {name: weight.shape for name, weight in model.weights.items()})


class _Views(Mapping[str, Floats]):
    def __init__(self, stored: Mapping[str, Floats], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._stored, self._shapes = stored, shapes

    def __getitem__(self, name: str) -> Floats:
        shape = self._shapes[name]
        module, _, parameter = name.rpartition(".")
        before, _, part = module.rpartition(".")
        fused = f"{before}.in_proj_{parameter}"
        if part in ("q_proj", "k_proj", "v_proj") and name not in self._stored and fused in self._stored:
            thirds: Floats = _shaped(self._stored[fused], (3, *shape), fused)
            own: Floats = thirds[THIRDS.index(part[0])]
            return own
        if name not in self._stored:
            raise FormatError(f"the model has no tensor {name}; it is incomplete, get it again")
        return _shaped(self._stored[name], shape, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _shaped(values: Floats, shape: tuple[int, ...], name: str) -> Floats:
    if values.size != math.prod(shape):
        raise FormatError(f"{name} is {list(values.shape)}; the config says {list(shape)}; get the model again")
    return values.reshape(shape)
