"""q4: 4-bit weights, -8..7, stored q+8.

A word holds 8 columns: the low nibble of byte j is column j, the high one column 4+j.
"""

from __future__ import annotations

import numpy as np

from tercet.packing import bits
from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]


def encode(codes: Codes) -> Words:
    return bits.join(codes + np.int8(8), 4)


def decode(words: Words) -> Codes:
    return bits.split(words, 4) - np.int8(8)


def invalid(words: Words) -> int:  # noqa: ARG001 - every nibble is a code
    return 0


LAYOUT = Layout(columns=8, padding=0, encode=encode, decode=decode, invalid=invalid)
