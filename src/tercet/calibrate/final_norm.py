"""The last norm's weights, fitted so that the head sees what it should: a closed form that costs no bits.

After the last block both streams pass the norm; its gains w' are the only numbers left before the logits E y.
With n the normalised rows before the gains, they minimise the mean squared error of centred logits

    sum_t || E (w' * nq_t - w * nf_t) ||^2      a softmax does not see a constant, so E's mean row is taken out

    (A * M) w' = diag(B M),   A = sum nq nq^T,  B = sum nq (w * nf)^T,  M = E^T E

held to w where the data says little. Directions the quantized model gets wrong are turned down rather than amplified.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["fit_gains"]

HOLD = 1e-3  # of the mean diagonal, towards the gains as they were
HEAD_ROWS = 8192


def fit_gains(pairs: Iterable[tuple[Tensor, Tensor]], gains: Tensor, head: Tensor) -> Tensor:
    """The new gains, float32[width].

    Args:
        pairs: chunks of (quantized, original) normalised rows without gains, float32[..., width].
        gains: the norm's, float32[width].
        head: float32[vocab, width].
    """
    width = len(gains)
    own, cross = torch.zeros(width, width), torch.zeros(width, width)
    for quantized, original in pairs:
        rows = quantized.reshape(-1, width)
        own.addmm_(rows.T, rows)
        cross.addmm_(rows.T, original.reshape(-1, width) * gains)
    mean = head.mean(0)
    metric = torch.zeros(width, width)
    for part in head.split(HEAD_ROWS):  # type: ignore[no-untyped-call]
        metric.addmm_((part - mean).T, part - mean)
    equations = own * metric
    hold = equations.diagonal().mean().mul(HOLD)
    equations.diagonal().add_(hold)
    fitted: Tensor = torch.linalg.solve(equations, (cross @ metric).diagonal() + hold * gains)
    return fitted
