"""A transformers model as the evaluation sees every model: ids -> logits, and how fast torch runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["FloatModel", "set_threads"]


class FloatModel:
    """Callable: ids int64[n] of a fresh sequence -> float32[n, vocab]. The model is used as it is, in eval mode."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = self.model(input_ids=torch.from_numpy(np.array(ids))[None], use_cache=False).logits
        result: NDArray[np.float32] = logits[0].float().numpy()
        return result

    def start(self) -> None:
        """Forgets the sequence; `step` starts a new one."""
        self._cache: Any = None

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Appends ids to the sequence: float32[vocab] after the last of them."""
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(np.array(ids))[None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        result: NDArray[np.float32] = output.logits[0, -1].float().numpy()
        return result


def set_threads(threads: int | None) -> None:
    """Threads of torch in this process; None leaves its own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
