"""Random weight tensors as hypothesis strategies: every format, group size, tail of rows and columns, shift or none."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tercet.tensor import IntTensor, TernaryTensor

GROUPS = {
    "t2": (32, 64, 128),
    "t19": (128,),
    "t5": (32, 64, 128),
    "b1": (32, 64, 128),
    "q8": (32, 64, 128),
    "q4": (32, 64, 128),
}


def tensor(fmt: str, rows: int, cols: int, group: int, shift: bool, seed: int) -> Any:
    """A tensor the format holds: codes over their whole range, scales from 0 and subnormals to 65504."""
    rng = np.random.default_rng(seed)
    count = rows, cols // group
    scale = rng.integers(0, 0x7C00, count, np.uint16).view(np.float16)
    scale[rng.random(count) < 0.1] = 0
    shifts = (rng.integers(0, 0x7C00, count, np.uint16) | rng.integers(0, 2, count, np.uint16) << 15).view(np.float16)
    if fmt in ("q8", "q4"):
        low, high = (-127, 127) if fmt == "q8" else (-8, 7)
        return IntTensor(rng.integers(low, high, (rows, cols), np.int8, endpoint=True), int(fmt[1]), scale)
    codes = rng.integers(-1, 1, (rows, cols), np.int8, endpoint=True)
    if fmt == "b1":
        codes = codes * 0 + rng.integers(0, 1, (rows, cols), np.int8, endpoint=True) * np.int8(2) - np.int8(1)
    return TernaryTensor(codes, scale, shifts + np.float16(0) if shift else None)


@st.composite
def tensors(draw: st.DrawFn, fmt: str) -> Any:
    """Shapes around every tile edge: rows 1..50, row scales up to 300 columns, up to 5 groups."""
    group = draw(st.sampled_from([0, *GROUPS[fmt]]))
    cols = draw(st.integers(1, 5)) * group if group else draw(st.integers(1, 300))
    shift = fmt not in ("q8", "q4") and draw(st.booleans())
    return tensor(fmt, draw(st.integers(1, 50)), cols, group or cols, shift, draw(st.integers(0, 2**32 - 1)))
