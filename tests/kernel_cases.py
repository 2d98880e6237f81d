"""Weights and activations for kernel tests: ordinary ones and the extremes that overflow and saturate where a kernel
is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tercet import kernels
from tercet.tensor import IntTensor, TernaryTensor

PACKED = ("t2", "b1", "q8", "q4", "t19")
TILE_COLUMNS = {"t2": 16, "b1": 32, "q8": 4, "q4": 8, "t19": 19}
RANGES = {"t2": (-1, 1), "b1": (-1, 1), "q8": (-127, 127), "q4": (-8, 7), "t19": (-1, 1)}
GROUPS = {fmt: (128,) if fmt == "t19" else (32, 64, 128) for fmt in PACKED}
SHIFTED = ("t2", "b1", "t19")


def isas(fmt: str) -> list[str]:
    """Instruction sets that read a format in place."""
    return [isa for isa in kernels.backends() if kernels.reads(fmt, isa)]


def weight(
    fmt: str, rows: int, cols: int, groups: int, rng: np.random.Generator, shift: bool = False
) -> TernaryTensor | IntTensor:
    """A random matrix; one in four is all the lowest or all the highest code."""
    low, high = RANGES[fmt]
    codes = rng.integers(low, high + 1, (rows, cols)).astype(np.int8)
    extreme = rng.integers(8)
    if extreme < 2:
        codes[:] = (low, high)[extreme]
    scale = np.abs(rng.normal(size=(rows, groups))).astype(np.float16)
    if fmt in ("q8", "q4"):
        return IntTensor(codes, int(fmt[1]), scale)
    if fmt == "b1":
        codes[codes == 0] = 1
    shifts = rng.normal(size=(rows, groups)).astype(np.float16) if shift else None
    return TernaryTensor(codes, scale, shifts)


def activations(n: int, cols: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal values; one in four is constant or alternating, so that every code is -127 or 127."""
    x = rng.normal(size=(n, cols)).astype(np.float32)
    kind = rng.integers(12)
    if kind == 0:
        x[:] = 3.0
    elif kind == 1:
        x[:] = -3.0
    elif kind == 2:
        x[:] = np.where(np.arange(cols) % 2, 1.0, -1.0)
    return x


def same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and a.tobytes() == b.tobytes()
