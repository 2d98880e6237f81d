"""The teacher's stored answers: what it says, once, and from the disk afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import tiny
from tercet.train.teacher import stored_logits

WINDOWS = np.stack([tiny.ids(16, seed=seed) for seed in range(3)]).astype(np.int64)


def test_they_are_the_likeliest_tokens_and_are_asked_for_once(tmp_path: Path) -> None:
    teacher, _, _ = tiny.model("llama")
    asked: list[tuple[int, int]] = []

    def ask(windows: np.ndarray, k: int = 5, key: str = "a") -> dict[str, np.ndarray]:
        return stored_logits(teacher, windows, k, tmp_path, {"source": key}, lambda i, n: asked.append((i, n)))

    found = ask(WINDOWS)
    assert asked == [(1, 3), (2, 3), (3, 3)]
    with torch.no_grad():
        best = teacher(input_ids=torch.from_numpy(WINDOWS)).logits.log_softmax(-1).topk(5)
    assert np.array_equal(found["index"], best.indices.numpy())
    np.testing.assert_allclose(found["values"], best.values.numpy(), rtol=1e-3, atol=1e-3)
    again = ask(WINDOWS)
    assert len(asked) == 3
    for name, array in found.items():
        assert np.array_equal(again[name], array)
    ask(WINDOWS, k=4)
    ask(WINDOWS, key="b")
    ask(WINDOWS[:, ::-1])
    assert len(asked) == 12
