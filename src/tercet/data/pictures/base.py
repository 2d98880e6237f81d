"""What every picture source gives: pixels, true captions, and which pictures show the same thing.

Two pictures of one group have the same meaning (same class, same emoji, same scene): the captions of each are true of
the other, so that in a contrastive loss and in retrieval all of them are right answers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pictures", "Split", "bucket"]

Split = Literal["train", "validation", "test", "unseen"]


@dataclass(frozen=True)
class Pictures:
    """Pictures and what is true of them.

    Attributes:
        name: of the source.
        pixels: uint8[n, height, width, 3], RGB; possibly a read-only view (grey pictures share one channel).
        captions: for each picture the sentences that are true of it, one at least; the first is the plain one.
        groups: int64[n]; pictures with equal numbers show the same thing. The numbers are the same in every split.
        classes: names of the groups 0..k-1 where the source is a classification set, else empty.
        templates: sentences with {} for the class name, as captions use them; empty where `classes` is.
    """

    name: str
    pixels: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    groups: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.captions) == len(self.groups):
            raise ValueError(f"{self.name}: {len(self.pixels)} pictures, {len(self.captions)} captions")

    def __len__(self) -> int:
        return len(self.pixels)


def bucket(text: str, count: int) -> int:
    """A number below `count` that depends on `text` alone, the same on every machine and for ever."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % count
