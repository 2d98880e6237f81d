"""The last norm's weights, fitted so that the head sees what it should: a closed form that costs no bits.

After the last block both streams pass the norm; its gains w' are the only numbers left before the logits E y.
With n the normalised rows before the gains, they minimise the mean squared error of centred logits

    sum_t || E (w' * nq_t - w * nf_t) ||^2      a softmax does not see a constant, so E's mean row is taken out

    (A * M) w' = diag(B M),   A = sum nq nq^T,  B = sum nq (w * nf)^T,  M = E^T E

held to w where the data says little. Directions the quantized model gets wrong are turned down rather than amplified.

The blocks fit the tokens they were calibrated on better than others, and w' takes them at their word. So one factor s
for all gains is found on windows that no statistics have seen: where the convex KL(original || softmax(s E y)) is
least, that is where softmax(s E y) expects the same logit as the original does.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["fit_gains", "fit_sureness"]

HOLD = 1e-3  # of the mean diagonal, towards the gains as they were
HEAD_ROWS = 8192
BISECTIONS = 10


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


def fit_sureness(quantized: Tensor, original: Tensor, head: Tensor) -> float:
    """The factor s, 1/4 to 2, for rows the head would read, float32[tokens, width] of each model."""
    logits = quantized @ head.T
    wanted = ((original @ head.T).softmax(1) * logits).sum()
    low, high = 0.25, 2.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if ((logits * middle).softmax(1) * logits).sum() < wanted:
            low = middle
        else:
            high = middle
    return (low + high) / 2
