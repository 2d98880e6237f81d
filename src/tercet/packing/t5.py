"""t5: ternary in 1.6 bits, five columns a byte in base 3. For shipping: no kernel reads it in place.

Row-major, ceil(in/5) bytes a row, groups ignored; a byte above 242 is invalid.
"""

from __future__ import annotations

import numpy as np

from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]

DIGITS = np.array([[byte // 3**i % 3 - 1 for i in range(5)] for byte in range(256)], np.int8)


def encode(codes: Codes) -> Words:
    digits = (codes + np.int8(1)).view(np.uint8)
    total = digits[..., 0].copy()
    for i in range(1, 5):
        total += np.uint8(3**i) * digits[..., i]
    return total


def decode(words: Words) -> Codes:
    return DIGITS.take(words, axis=0)


def invalid(words: Words) -> int:
    return int(np.count_nonzero(words > 242))


LAYOUT = Layout(columns=5, padding=0, encode=encode, decode=decode, invalid=invalid, tiled=False, aligned=False)
