"""Rows of an original's matrix that are rows of ours: parts of fused matrices, and heads in another order.

Where an original rotates neighbouring columns of a head (0 1, 2 3 ...), ours rotates its halves: the rows that make
these columns change places in q and k alike, which leaves every q.k as it is.
"""

from __future__ import annotations

import numpy as np

from tercet.families.spec import Shape
from tercet.program import Stored

__all__ = ["fused_mlp", "fused_qkv", "neighbours", "parted_by_head"]


def fused_qkv(shape: Shape, module: str) -> dict[str, Stored]:
    """q, k and v one after the other in one matrix."""
    sizes = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    return _parts({f"self_attn.{part}_proj": heads * shape.head_dim for part, heads in sizes.items()}, module)


def fused_mlp(shape: Shape, module: str) -> dict[str, Stored]:
    """gate and up one after the other in one matrix."""
    return _parts({"mlp.gate_proj": shape.inner, "mlp.up_proj": shape.inner}, module)


def _parts(sizes: dict[str, int], module: str) -> dict[str, Stored]:
    found, start, count = {}, 0, sum(sizes.values())
    for name, size in sizes.items():
        found[name] = Stored(module, slice(start, start + size), count)
        start += size
    return found


def parted_by_head(shape: Shape, module: str) -> dict[str, Stored]:
    """One matrix that holds q, k and v of the first head, then of the second ..."""
    every = np.arange(3 * shape.heads * shape.head_dim).reshape(shape.heads, 3, shape.head_dim)
    return {
        f"self_attn.{part}_proj": Stored(module, every[:, index].ravel(), every.size)
        for index, part in enumerate("qkv")
    }


def neighbours(shape: Shape, rotary: int) -> dict[str, Stored]:
    """q and k whose first `rotary` columns of a head are rotated in neighbouring pairs."""
    order = np.arange(shape.head_dim)
    order[:rotary] = order[:rotary].reshape(-1, 2).T.ravel()
    found = {}
    for part, heads in (("q", shape.heads), ("k", shape.kv_heads)):
        rows = (np.arange(heads)[:, None] * shape.head_dim + order).ravel()
        found[f"self_attn.{part}_proj"] = Stored(f"self_attn.{part}_proj", rows)
    return found
