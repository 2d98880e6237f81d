"""`l2`, the exact optimum of min sum (W - alpha*T)^2 over alpha and T in {-1, 0, 1}.

For a given T the best alpha is sum(T*W) / sum |T| and the loss is sum W^2 - sum(T*W)^2 / sum |T|. Of all T with k
non-zeros the best takes the signs of the k largest |W|. So, with S_k the sum of the k largest:

    k = argmax S_k^2 / k,   alpha = S_k / k

One sort and one prefix sum. T is then the nearest level of the float16 alpha, which is the best T for that alpha.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from tercet.quantizers.base import Quantizer, QuantizerConfig

__all__ = ["L2", "L2Config"]


class L2(Quantizer):
    def fit(self, x: Tensor) -> tuple[Tensor, None]:
        largest_first = x.abs().flatten(1).sort(dim=1, descending=True).values
        sums = largest_first.cumsum(1, dtype=torch.float64)
        count = torch.arange(1, sums.shape[1] + 1, dtype=torch.float64, device=x.device)
        best = (sums.square() / count).argmax(1, keepdim=True)
        alpha = sums.gather(1, best) / (best + 1)
        return alpha.float()[..., None], None


class L2Config(QuantizerConfig, frozen=True):
    """See the module."""

    name: Literal["l2"] = "l2"

    def build(self) -> L2:
        return L2(self.group_size or "row")
