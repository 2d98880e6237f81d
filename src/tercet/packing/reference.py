"""The packed product in numpy, as docs/format.md states it: the oracle of the kernels. Exact integers, no C++.

float32 fma is computed exactly: a product of two float32 is exact in float64, and the sum is rounded to odd before it
is rounded to float32, so that the two roundings act as one (Boldo and Melquiond, "Emulation of FMA and correctly
rounded sums: proved algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["fma", "linear", "quantize_activations"]


def quantize_activations(
    x: NDArray[np.float32], group_size: int
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32]]:
    """x float32[n, in], finite -> codes int8[n, in], scale float32[n, groups], sum int32[n, groups].

    amax = max|x|, codes = rint_even(x * (127/amax)), scale = amax/127; all 0 where amax is 0, or so small that 127/amax
    is infinite.
    """
    n, width = x.shape
    codes = np.zeros((n, width), np.int8)
    groups = -(-width // group_size)
    scale, total = np.zeros((n, groups), np.float32), np.zeros((n, groups), np.int32)
    for g in range(groups):
        part = slice(g * group_size, (g + 1) * group_size)
        amax = np.abs(x[:, part]).max(axis=1)
        with np.errstate(divide="ignore", over="ignore"):
            inverse = np.float32(127) / amax
        usable = np.isfinite(inverse)
        scale[:, g] = np.where(usable, amax / np.float32(127), 0)
        codes[:, part] = np.rint(x[:, part] * np.where(usable, inverse, 0)[:, None].astype(np.float32))
        total[:, g] = codes[:, part].sum(axis=1, dtype=np.int32)
    return codes, scale, total


def linear(
    weight: TernaryTensor | IntTensor, x: NDArray[np.float32], bias: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """x float32[n, in] -> float32[n, out]: groups ascending, acc = fma(sx*alpha, q.x, acc), shift next, bias last."""
    size = weight.group_size
    codes, scale, total = quantize_activations(x, size)
    shift = weight.shift if isinstance(weight, TernaryTensor) else None
    acc = np.zeros((len(x), weight.shape[0]), np.float32)
    for g in range(weight.scale.shape[1]):
        part = slice(g * size, (g + 1) * size)
        products = codes[:, part].astype(np.float64) @ weight.codes[:, part].astype(np.float64).T  # exact below 2^53
        sx = scale[:, g, None]
        acc = fma(sx * weight.scale[:, g].astype(np.float32), products.astype(np.float32), acc)
        if shift is not None:
            sums = np.broadcast_to(total[:, g, None].astype(np.float32), acc.shape)
            acc = fma(sx * shift[:, g].astype(np.float32), sums, acc)
    return acc if bias is None else acc + bias


def fma(a: NDArray[np.float32], b: NDArray[np.float32], c: NDArray[np.float32]) -> NDArray[np.float32]:
    """a*b + c with one rounding, elementwise (results in the normal range)."""
    product, addend = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + addend
    high = total - product
    error = (product - (total - high)) + (addend - high)  # TwoSum: total + error is the exact sum
    even = (total.view(np.int64) & 1) == 0
    away = np.where((error > 0) == (total > 0), 1, -1)
    odd = (total.view(np.int64) + away).view(np.float64)
    return np.where((error != 0) & even, odd, total).astype(np.float32)
