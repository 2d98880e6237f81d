"""Random ternary weights and activations, the same for every participant: only their speed is measured.

The share of zeros is a third. Scales are float16 numbers, so that formats with float16 scales hold them exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ternary(rows: int, cols: int, group: int, seed: int = 0) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """codes int8[rows, cols] and scales float16[rows, cols // group], of a size that keeps activations of size 1."""
    rng = np.random.default_rng([seed, rows, cols])
    codes = rng.integers(-1, 2, (rows, cols), np.int8)
    scale = rng.uniform(0.5, 1.5, (rows, cols // group)) * np.sqrt(1.5 / cols)
    return codes, scale.astype(np.float16)


def dequantize(codes: NDArray[np.int8], scale: NDArray[np.float16]) -> NDArray[np.float32]:
    width = codes.shape[1] // scale.shape[1]
    values: NDArray[np.float32] = codes * np.repeat(scale.astype(np.float32), width, axis=1)
    return values


def activations(n: int, cols: int) -> NDArray[np.float32]:
    """float32[n, cols], normal."""
    return np.random.default_rng([7, n, cols]).standard_normal((n, cols), np.float32)


def relative_error(y: NDArray[Any], reference: NDArray[Any]) -> float:
    """||y - reference|| / ||reference||, in float64."""
    wanted = np.asarray(reference, np.float64)
    return float(np.linalg.norm(np.asarray(y, np.float64) - wanted) / np.linalg.norm(wanted))
