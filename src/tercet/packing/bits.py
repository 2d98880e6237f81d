"""Words whose codes are bit fields of equal width: t2, b1, q8 and q4 differ only in how many.

Column 4s+j sits in byte j, slot s. Read four neighbouring columns as one uint32, and they enter slot s by one shift: no
carry crosses a byte, because a field never overflows its slot.
"""

from __future__ import annotations

import numpy as np

from tercet.packing.layout import Codes, Words

__all__ = ["join", "split"]


def join(fields: Codes, bits: int) -> Words:
    """Fields [rows, tiles, 32/bits], each below 2**bits -> words uint32[rows, tiles]."""
    quads = np.ascontiguousarray(fields).view("<u4")
    words = quads[..., 0].copy()
    for slot in range(1, quads.shape[-1]):
        words |= quads[..., slot] << np.uint32(slot * bits)
    return words


def split(words: Words, bits: int) -> Codes:
    """The way back: int8[rows, tiles, 32/bits]."""
    mask = np.uint32(0x01010101 * ((1 << bits) - 1))
    quads = np.empty((*words.shape, 8 // bits), "<u4")
    for slot in range(quads.shape[-1]):
        quads[..., slot] = (words >> np.uint32(slot * bits)) & mask
    return quads.view(np.int8)
