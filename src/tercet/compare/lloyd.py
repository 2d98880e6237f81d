"""k-means' relative error by iteration on a model's own matrices: Figure 2 of Crulis et al."""

from __future__ import annotations

import numpy as np
import torch

from tercet import sources
from tercet.quantizers import kmeans_history

__all__ = ["EVERY", "kmeans_errors"]

EVERY = 5  # blocks are looked at


def kmeans_errors(source: sources.Source) -> list[float]:
    """sum (W - m*T)^2 / sum W^2 after 0, 1, ... iterations, a scale for each row: means over the matrices of every
    fifth block of each part.
    """
    names = [name for part in source.model.parts.values() for block in part.blocks[::EVERY] for name in block]
    tensors = source.tensors()
    histories = [kmeans_history(torch.from_numpy(np.array(tensors[name]))) for name in names]
    return [float(value) for value in np.array(histories)[:, :, 1].mean(0)]
