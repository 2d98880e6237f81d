"""Cuts a text's tokens into the windows that perplexity is measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tercet.errors import TercetError

__all__ = ["spread", "windows"]


def windows(
    ids: Sequence[int] | NDArray[np.int64],
    context: int,
    tokens: int | None = None,
    *,
    prefix: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Non-overlapping windows over the start of `ids`: int64[n, context].

    A remainder shorter than a window is left out; a text shorter than one window is one window, as long as it is.

    Args:
        ids: the text's tokens, without what the tokenizer adds in front.
        context: tokens a window, the prefix included.
        tokens: at most so many tokens, prefixes included, rounded down to whole windows; None for the whole text.
        prefix: what the tokenizer adds in front of a text (a BOS, or nothing): every window then starts with it.

    Raises TercetError where there are too few tokens to score even one.
    """
    text = np.asarray(ids, dtype=np.int64)
    start = np.asarray(prefix, dtype=np.int64)
    size = min(context, len(text) + len(start), tokens if tokens is not None else context)
    step = size - len(start)
    if step < 1 or size < 2:
        raise TercetError(
            f"a text of {len(text)} tokens with context {context} leaves nothing to score; give more text"
        )
    count = len(text) // step
    if tokens is not None:
        count = min(count, tokens // size)
    body = text[: count * step].reshape(count, step)
    return np.concatenate([np.broadcast_to(start, (count, len(start))), body], axis=1)


def spread(cut: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """At most `tokens` tokens in whole windows (one at least), evenly from all over the text, in its order.

    The first windows would be one article, and articles differ more than models do.
    """
    count = min(len(cut), max(1, tokens // cut.shape[1]))
    taken: NDArray[np.int64] = cut[np.arange(count) * len(cut) // count]
    return taken
