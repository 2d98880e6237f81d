"""Where a model's tensors are in the checkpoint it came from: data that a family gives and `tercet.sources` follows.

Our names and rows are the same for all families, so that a recipe's patterns and a rotation's pairs are. What an
original keeps under another name, as part of a larger matrix, in another order of rows, or without a multiplier that
its code applies, is said here by tensor. A packed model holds our tensors and needs none of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Original", "Stored"]


@dataclass(frozen=True, eq=False)
class Stored:
    """Where one tensor is.

    Attributes:
        name: the original's; "" where it has none: the tensor is `factor` everywhere.
        rows: which rows of it are ours, in our order; a slice is read as a view; None: all.
        count: rows that it has; 0: as many as ours.
        factor: what its values are multiplied by.
    """

    name: str
    rows: slice | NDArray[np.intp] | None = None
    count: int = 0
    factor: float = 1.0


@dataclass(frozen=True)
class Original:
    """A checkpoint.

    Attributes:
        tensors: by our name, those that are not stored as they are.
        roots: what may stand in place of a name's leading "model.": the first that fits holds for the whole checkpoint.
        beside: how the names of its other parts begin, which are left alone.
    """

    tensors: Mapping[str, Stored] = field(default_factory=dict)
    roots: tuple[str, ...] = ("model.", "")
    beside: tuple[str, ...] = ()
