"""Windows of a text of several kinds: each kind is cut by itself, and all have equal shares of what is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.data.texts import Text
from tercet.data.windows import spread, windows
from tercet.errors import TercetError

__all__ = ["cut", "drawn", "evenly", "shares"]

Windows = NDArray[np.int64]


def cut(
    text: Text, encode: Callable[[str], Sequence[int] | NDArray[Any]], context: int, prefix: Sequence[int] = ()
) -> dict[str, Windows]:
    """int64[n, context] of each kind, as `windows` cuts it; where there are several, without those too short for one.

    Raises TercetError where there are too few tokens to score even one.
    """
    made = {}
    for kind, content in text.parts.items():
        ids = encode(content)
        if len(text.parts) == 1 or len(ids) + len(prefix) >= context:
            made[kind] = windows(ids, context, prefix=prefix)
    if not made:
        raise TercetError(f"{text.name}: no kind of it fills a window of {context} tokens; use a shorter context")
    return made


def evenly(cuts: Mapping[str, Windows], tokens: int) -> Windows:
    """At most `tokens` tokens, in equal shares of the kinds, from all over each, in their order."""
    counts = shares([len(each) for each in cuts.values()], _count(cuts, tokens))
    taken = [spread(each, count * each.shape[1]) for each, count in zip(cuts.values(), counts, strict=True) if count]
    return np.concatenate(taken)


def drawn(cuts: Mapping[str, Windows], tokens: int, seed: int) -> Windows:
    """At most `tokens` tokens, in equal shares of the kinds, drawn from all over each; several kinds are mixed."""
    rng = np.random.default_rng(seed)
    counts = shares([len(each) for each in cuts.values()], _count(cuts, tokens))
    taken = [
        each[np.sort(rng.permutation(len(each))[:count])] for each, count in zip(cuts.values(), counts, strict=True)
    ]
    if len(taken) == 1:
        return taken[0]
    mixed = np.concatenate(taken)
    return mixed[rng.permutation(len(mixed))]


def shares(available: Sequence[int], wanted: int) -> list[int]:
    """How many to take of each: equally many, and of those that have fewer all; `wanted` together, or all there are."""
    taken = [0] * len(available)
    while wanted:
        open_ = [index for index, most in enumerate(available) if taken[index] < most]
        if not open_:
            break
        each = max(1, wanted // len(open_))
        for index in open_:
            more = min(each, available[index] - taken[index], wanted)
            taken[index] += more
            wanted -= more
    return taken


def _count(cuts: Mapping[str, Windows], tokens: int) -> int:
    """Windows; one at least."""
    width: int = next(iter(cuts.values())).shape[1]
    return max(1, tokens // width)
