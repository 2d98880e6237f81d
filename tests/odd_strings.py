"""Strings that break tokenizers: scripts, emoji, spaces of all kinds, digits, contractions, fragments of markers."""

from __future__ import annotations

import random

__all__ = ["PIECES", "strings"]

PIECES = [
    "the",
    "Ternary",
    "weights",
    " ",
    "  ",
    "\t",
    "\n",
    "\r\n",
    "\n\n ",
    "'s",
    "'LL",
    "don't",
    "12",
    "3456789",
    "½²",
]
PIECES += [
    "é",
    "e\u0301",
    "Ångström",
    "дом",
    "中文字",
    "日本語",
    "한국",
    "שלום",
    "नमस्ते",
    "👍🏽",
    "👩‍👩‍👧",
    "\u2581",
    "Ġ",
    "\0",
    "\ufeff",
]
PIECES += [
    "<|im_start|>",
    "<|im_end",
    "<s>",
    "</s>",
    "==",
    "://",
    "...",
    "_a",
    "(x)",
    "\u3000",
    "\u00a0",
    "ﬁ",
    "ß",
    "x1y2",
]


def strings(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    made = ["", " ", "  a", "a  ", "a\n\n\nb"]
    while len(made) < count:
        parts = rng.choices(PIECES, k=rng.randrange(1, 9))
        if rng.random() < 0.3:
            parts.append("".join(chr(rng.choice((rng.randrange(1, 0xD7FF), rng.randrange(32, 127)))) for _ in range(5)))
        made.append(rng.choice(("", " ")).join(parts))
    return made
