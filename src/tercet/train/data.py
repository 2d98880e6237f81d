"""Which windows each step reads.

The windows of all epochs are one endless row: a shuffle of all n, then another, and so on. A step takes the next
batch * accumulation of them, whatever epoch they belong to; so the state of the data is the number of the step, and
nothing else has to be saved. A shuffle is a function of (seed, epoch) alone.

Each process takes its part of every batch: the gradient is that of one process that takes them all. Texts are mixed by
the number of windows that each contributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.errors import TrainError
from tercet.recipe.settings import Train

__all__ = ["Batches"]


class Batches:
    """Callable: a step, from 0 -> its batches on this process, one a pass.

    Args:
        arrays: by name, each [n, ...] with a row a window: "ids" int64[n, context], and what else the task reads of a
            window, such as its teacher's logits. Rows are read when they are asked for, so memory-mapped arrays stay
            on disk.
        process, processes: this one of how many.

    Raises TrainError where there is no window, an array has other rows, or a batch cannot be shared evenly.
    """

    def __init__(
        self, arrays: Mapping[str, NDArray[Any]], settings: Train, process: int = 0, processes: int = 1
    ) -> None:
        ids = arrays["ids"]
        if ids.ndim != 2 or not ids.size:
            raise TrainError(f"windows are {list(ids.shape)}, not [n, context]; give a text that fills one at least")
        for name, array in arrays.items():
            if len(array) != len(ids):
                raise TrainError(f"{name} has rows for {len(array)} windows, and there are {len(ids)}; make it again")
        if settings.batch % processes:
            raise TrainError(f"a batch of {settings.batch} windows does not divide among {processes} processes")
        self.arrays = arrays
        self.settings = settings
        self.process = process
        self.share = settings.batch // processes

    @property
    def windows_a_step(self) -> int:
        return self.settings.batch * self.settings.accumulation

    @property
    def tokens_a_step(self) -> int:
        return self.windows_a_step * int(self.arrays["ids"].shape[1])

    def epoch(self, step: int) -> float:
        """Epochs done after so many steps."""
        return step * self.windows_a_step / len(self.arrays["ids"])

    def rows(self, step: int) -> NDArray[np.int64]:
        """int64[accumulation, batch]: the windows of a step on all processes."""
        count = len(self.arrays["ids"])
        places = np.arange(step * self.windows_a_step, (step + 1) * self.windows_a_step)
        epochs = places // count
        rows = np.concatenate(
            [_shuffle(count, self.settings.seed, int(e))[places[epochs == e] % count] for e in np.unique(epochs)]
        )
        return rows.reshape(self.settings.accumulation, self.settings.batch)

    def __call__(self, step: int) -> list[dict[str, Tensor]]:
        mine = slice(self.process * self.share, (self.process + 1) * self.share)
        return [
            {name: torch.from_numpy(np.ascontiguousarray(array[rows[mine]])) for name, array in self.arrays.items()}
            for rows in self.rows(step)
        ]


@lru_cache(maxsize=2)
def _shuffle(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(count)
