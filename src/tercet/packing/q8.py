"""q8: int8 weights, -127..127, for heads, embeddings and kept layers.

A word holds 4 columns, a byte each. No row sums are stored: a kernel that multiplies unsigned by signed takes
q XOR 0x80 and subtracts 128 times the activations' sum, which it has.
"""

from __future__ import annotations

import numpy as np

from tercet.packing import bits
from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]


def encode(codes: Codes) -> Words:
    return bits.join(codes, 8)


def decode(words: Words) -> Codes:
    return bits.split(words, 8)


def invalid(words: Words) -> int:
    return int(np.count_nonzero(np.ascontiguousarray(words).view(np.int8) == -128))


LAYOUT = Layout(columns=4, padding=0, encode=encode, decode=decode, invalid=invalid)
