"""t19: ternary in 32/19 = 1.69 bits: three columns in a base-27 field of 5 bits, six fields and a 2-bit column a word.

Groups start a new word: 128 columns take 7 words (1.75 bits). For 64 they would take 4, as in t2: there are no such
groups. A field of 27..31 and a last column of 3 are invalid and decode to T = 0.
"""

from __future__ import annotations

import numpy as np

from tercet.packing.layout import Codes, Layout, Words

__all__ = ["LAYOUT"]

# Two fields of 5 bits -> their six codes, moved as one item; invalid fields give zeros.
SIX = np.dtype("V6")
FIELDS = np.zeros((32, 3), np.int8)
FIELDS[:27] = [[field // 3**i % 3 - 1 for i in range(3)] for field in range(27)]
PAIRS = np.concatenate([FIELDS[np.arange(1024) % 32], FIELDS[np.arange(1024) // 32]], axis=1).view(SIX)[:, 0]
LAST = np.array([-1, 0, 1, 0], np.int8)
WORD = np.dtype([("0", SIX), ("1", SIX), ("2", SIX), ("last", np.int8)])


def encode(codes: Codes) -> Words:
    digits = (codes + np.int8(1)).view(np.uint8)
    words = digits[..., 18].astype(np.uint32) << np.uint32(30)
    for i in range(6):
        field = digits[..., 3 * i] + np.uint8(3) * digits[..., 3 * i + 1] + np.uint8(9) * digits[..., 3 * i + 2]
        words |= field.astype(np.uint32) << np.uint32(5 * i)
    return words


def decode(words: Words) -> Codes:
    codes = np.empty(words.shape, WORD)
    for pair in range(3):
        codes[str(pair)] = PAIRS[(words >> np.uint32(10 * pair)) & np.uint32(1023)]
    codes["last"] = LAST[words >> np.uint32(30)]
    return codes.view(np.int8).reshape(*words.shape, 19)


def invalid(words: Words) -> int:
    fields = sum(np.count_nonzero((words >> np.uint32(5 * i)) & np.uint32(31) > 26) for i in range(6))
    return int(fields + np.count_nonzero(words >> np.uint32(30) == 3))


LAYOUT = Layout(columns=19, padding=0, encode=encode, decode=decode, invalid=invalid, groups=(128,))
