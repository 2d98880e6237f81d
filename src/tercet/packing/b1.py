"""b1: binary weights, one bit each, T = 2b-1.

A word holds 32 columns: byte j, bit s is column 4s+j. Padding bits are 0, that is T = -1: the activations there are 0.
"""

from __future__ import annotations

import numpy as np

from tercet.packing import bits
from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]


def encode(codes: Codes) -> Words:
    return bits.join((codes > 0).view(np.int8), 1)


def decode(words: Words) -> Codes:
    return bits.split(words, 1) * np.int8(2) - np.int8(1)


def invalid(words: Words) -> int:  # noqa: ARG001 - every bit is a code
    return 0


LAYOUT = Layout(columns=32, padding=-1, encode=encode, decode=decode, invalid=invalid)
