"""The blockwise Hadamard rotation of a linear's input: outliers of a few columns are spread over all of a block.

    (W H)(H x) = W x,   H = diag(B, B, ...),   B orthonormal and symmetric, block x block, entries +-1/sqrt(block)

so a model rotated so computes what it did, and its weights W H are rounded in place of W. The engine computes H x by
the fast Walsh-Hadamard transform: with half = 1, 2, 4 ... block/2, ascending, each pair of values `half` apart becomes
(a + b, a - b); at last all are multiplied by f32(1/sqrt(block)). In float32 that is the same bits everywhere, here too.
"""

from __future__ import annotations

import math
import sys
from typing import Any, TypeVar

import numpy as np

from tercet.errors import QuantizeError

__all__ = ["largest_block", "rotated"]

Array = TypeVar("Array", bound=Any)  # NDArray[np.floating] or torch.Tensor


def largest_block(width: int) -> int:
    """The largest power of two that divides `width`."""
    return width & -width


def rotated(x: Array, block: int) -> Array:
    """x H, along the last axis: of activations H x, of weights [out, in] W H. Its own inverse, but for rounding.

    Args:
        x: float[..., width], numpy or torch (differentiable); the result has its type and shape.
        block: columns of a block, a power of two.

    Raises QuantizeError where the block is none, or does not divide the width.
    """
    shape, width = tuple(x.shape), x.shape[-1]
    if block < 1 or block & (block - 1) or width % block:
        raise QuantizeError(f"{width} columns cannot be rotated in blocks of {block}; use a power of two that divides")
    stack = np.stack if isinstance(x, np.ndarray) else sys.modules["torch"].stack  # who has a tensor has torch
    y: Any = x
    half = 1
    while half < block:
        pairs = y.reshape(*shape[:-1], width // (2 * half), 2, half)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        y = stack((a + b, a - b), -2)
        half *= 2
    result: Array = y.reshape(shape) * (1 / math.sqrt(block))
    return result
