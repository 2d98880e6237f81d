"""Pictures as rows: what the first linear of an image tower reads.

A convolution whose stride is its kernel's size is a matrix product: pixels of a patch, channel by channel and line by
line, are one row, and the kernel [width, channels, size, size] is the matrix [width, channels*size*size] of the same
bytes. Patches come line by line.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["patches"]


def patches(pixels: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """float32[n, channels, height, width] -> float32[n, patches, channels*size*size]; a rest smaller than a patch, to
    the right or below, is left out."""
    count, channels, height, width = pixels.shape
    lines, columns = height // size, width // size
    whole = pixels[:, :, : lines * size, : columns * size]
    cut = whole.reshape(count, channels, lines, size, columns, size).transpose(0, 2, 4, 1, 3, 5)
    return np.ascontiguousarray(cut, np.float32).reshape(count, lines * columns, channels * size * size)
