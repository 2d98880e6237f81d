"""The blockwise Hadamard rotation of a linear's input: outliers of a few columns are spread over all of a block.

    (W H)(H x) = W x,   H = diag(B, B, ...),   B orthonormal and symmetric, block x block, entries +-1/sqrt(block)

so a model rotated so computes what it did, and its weights W H are rounded in place of W. A block of m * 2^k columns
has B = P (x) S / sqrt(block): P is Paley's matrix of order m, 1 for powers of two, S is Sylvester's of order 2^k.
The engine computes H x by the fast transform: in runs of 2^k with half = 1, 2, 4 ... 2^k/2, ascending, each pair of
values `half` apart becomes (a + b, a - b); then, where m > 1, each m values 2^k apart become their sums with the signs
of P's rows, added from the first to the last; at last all are multiplied by f32(1/sqrt(block)). In float32 that is the
same bits everywhere, here too.

Paley's constructions (1933), symmetric both, q a prime and chi its quadratic character:

    I    m = q + 1, q = 3 mod 4        [[1, 1], [1, -K]], K_ij = chi(i + j), and 1 where i + j = 0
    II   m = 2 (q + 1), q = 1 mod 4    C (x) [[1, 1], [1, -1]] + 1 (x) [[1, -1], [-1, -1]], C = [[0, 1], [1, chi(i-j)]]
"""

from __future__ import annotations

import math
import sys
from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tercet.errors import QuantizeError

__all__ = ["largest_block", "order", "paley", "rotated", "widest_block"]

Array = TypeVar("Array", bound=Any)  # NDArray[np.floating] or torch.Tensor

MAX_ORDER = 512  # of the kernels; the smallest matrix for 23 * 2^k columns is of order 368


def largest_block(width: int) -> int:
    """The largest power of two that divides `width`."""
    return width & -width


def widest_block(width: int) -> int:
    """`width` where there is a matrix of that order, else the largest power of two that divides it."""
    return width if order(width) else largest_block(width)


@cache
def order(block: int) -> int:
    """Paley's part m of a block of so many columns, 1 for a power of two; 0 where there is no such matrix."""
    if block < 1:
        return 0
    odd = block // largest_block(block)
    orders = [1] if odd == 1 else (odd << power for power in range(2, 10) if block % (odd << power) == 0)
    return next((m for m in orders if m <= MAX_ORDER and (m == 1 or _construction(m))), 0)


def _construction(m: int) -> int:
    if (m - 1) % 4 == 3 and _is_prime(m - 1):
        return 1
    return 2 if m % 4 == 0 and (m // 2 - 1) % 4 == 1 and _is_prime(m // 2 - 1) else 0


def _is_prime(q: int) -> bool:
    return q > 1 and all(q % factor for factor in range(2, math.isqrt(q) + 1))


@cache
def paley(m: int) -> NDArray[np.float32]:
    """P, float32[m, m] of +-1; `m` as `order` gives it."""
    if m == 1:
        return np.ones((1, 1), np.float32)
    first = _construction(m) == 1
    q = m - 1 if first else m // 2 - 1
    character = np.full(q, -1)
    character[np.arange(1, q) ** 2 % q] = 1
    character[0] = 1 if first else 0
    i, j = np.indices((q, q))
    core = np.ones((q + 1, q + 1), int)
    core[1:, 1:] = -character[(i + j) % q] if first else character[(i - j) % q]
    if not first:
        core[0, 0] = 0
        core = np.kron(core, [[1, 1], [1, -1]]) + np.kron(np.eye(q + 1, dtype=int), [[1, -1], [-1, -1]])
    signs: NDArray[np.float32] = core.astype(np.float32)
    signs.flags.writeable = False
    return signs


def rotated(x: Array, block: int) -> Array:
    """x H, along the last axis: of activations H x, of weights [out, in] W H. Its own inverse, but for rounding.

    Args:
        x: float[..., width], numpy or torch (differentiable); the result has its type and shape.
        block: columns of a block, such that `order` has a matrix.

    Raises QuantizeError where it has none, or the block does not divide the width.
    """
    shape, width, m = tuple(x.shape), x.shape[-1], order(block)
    if not m or width % block:
        raise QuantizeError(f"{width} columns cannot be rotated in blocks of {block}; use a power of two that divides")
    numpy = isinstance(x, np.ndarray)
    stack = np.stack if numpy else sys.modules["torch"].stack  # who has a tensor has torch
    y: Any = x.float() if not numpy and x.element_size() < 4 else x  # sums are not rounded to 16 bits on the way
    half, run = 1, block // m
    while half < run:
        pairs = y.reshape(*shape[:-1], width // (2 * half), 2, half)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        y = stack((a + b, a - b), -2)
        half *= 2
    if m > 1:
        values = y.reshape(*shape[:-1], width // block, m, run)
        y = stack([_signed_sum(values, row) for row in paley(m)], -2)
    y = y.reshape(shape) * (1 / math.sqrt(block))
    result: Array = y if numpy else y.to(x.dtype)
    return result


def _signed_sum(values: Any, signs: NDArray[np.float32]) -> Any:
    """The values of the last axis but one, added in order."""
    total = values[..., 0, :] * float(signs[0])
    for index, sign in enumerate(signs[1:], start=1):
        total = total + values[..., index, :] if sign > 0 else total - values[..., index, :]
    return total
