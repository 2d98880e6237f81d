"""t2: ternary in 2 bits, the format every instruction set reads in place.

A word holds 16 columns: byte j, bits 2s..2s+1 is column 4s+j, stored T+1. So `word & 0x03030303` is four neighbouring
columns, ready for a dot product with four int8 activations; the other slots need no shift either, only their sums do.
"""

from __future__ import annotations

import numpy as np

from tercet.packing import bits
from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]


def encode(codes: Codes) -> Words:
    return bits.join(codes + np.int8(1), 2)


def decode(words: Words) -> Codes:
    return bits.split(words, 2) - np.int8(1)


def invalid(words: Words) -> int:
    """Fields of value 3: both bits set."""
    both = words & (words >> np.uint32(1)) & np.uint32(0x55555555)
    return int(np.unpackbits(both[both != 0].view(np.uint8)).sum())


LAYOUT = Layout(columns=16, padding=0, encode=encode, decode=decode, invalid=invalid)
