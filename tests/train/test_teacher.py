"""The teacher's stored answers: what it says, once, and from the disk afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
import training
from tercet.train.head import Head
from tercet.train.teacher import HeadOnly, stored_hidden, stored_logits

WINDOWS = np.stack([tiny.ids(16, seed=seed) for seed in range(3)]).astype(np.int64)


def original(family: str) -> torch.Tensor:
    """The logits of transformers' own model."""
    made, _, _ = tiny.model(family)
    return torch.from_numpy(np.stack([tiny.reference(made, window) for window in WINDOWS]))


def test_they_are_the_likeliest_tokens_and_are_asked_for_once(tmp_path: Path) -> None:
    teacher = training.module()
    asked: list[tuple[int, int]] = []

    def ask(windows: np.ndarray, k: int = 5, key: str = "a") -> dict[str, np.ndarray]:
        return stored_logits(teacher, windows, k, tmp_path, {"source": key}, lambda i, n: asked.append((i, n)))

    found = ask(WINDOWS)
    assert asked == [(3, 3)]
    best = original("llama").log_softmax(-1).topk(5)
    assert np.array_equal(found["index"], best.indices.numpy())
    np.testing.assert_allclose(found["values"], best.values.numpy(), rtol=1e-3, atol=1e-3)
    again = ask(WINDOWS)
    assert len(asked) == 1
    for name, array in found.items():
        assert np.array_equal(again[name], array)
    ask(WINDOWS, k=4)
    ask(WINDOWS, key="b")
    ask(WINDOWS[:, ::-1])
    assert len(asked) == 4


@pytest.mark.parametrize("family", ["llama", "phi"])  # whose head has a bias
def test_hidden_states_give_the_logits_again_through_the_head_that_is_left(family: str, tmp_path: Path) -> None:
    teacher = training.module(family)
    found = stored_hidden(teacher, WINDOWS, tmp_path, {}, lambda *_: None)["teacher"]
    logits = original(family)
    with torch.no_grad():
        again = Head(*HeadOnly(teacher).head())(torch.from_numpy(np.array(found)))
    torch.testing.assert_close(again, logits, rtol=2e-3, atol=2e-3 * float(logits.std()))


def test_a_teacher_that_was_stopped_is_asked_only_for_the_parts_that_are_missing(tmp_path: Path) -> None:
    teacher = training.module()
    windows = np.stack([tiny.ids(4, seed=seed) for seed in range(100)]).astype(np.int64)
    whole = stored_hidden(teacher, windows, tmp_path / "whole", {}, lambda *_: None)["teacher"]

    def stop(done: int, _: int) -> None:
        if done > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stored_hidden(teacher, windows, tmp_path / "parts", {}, stop)
    asked: list[int] = []
    found = stored_hidden(teacher, windows, tmp_path / "parts", {}, lambda i, _: asked.append(i))["teacher"]
    assert min(asked) > 64
    assert np.array_equal(found, whole)
    assert len(list((tmp_path / "parts").iterdir())) == 1


def test_two_processes_ask_once(tmp_path: Path) -> None:
    """The second waits for the first, and finds its answers."""
    script = f"""
import sys
import torch
from pathlib import Path
from tercet.train.teacher import stored_embeddings
def encode(rows):
    print("asked", flush=True)
    return rows.float()
rows = torch.arange(4000.0).reshape(2000, 2).numpy()
found = stored_embeddings(encode, rows, Path({str(tmp_path)!r}), {{}}, lambda *_: None)
assert (found == rows).all()
"""
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    asked = sorted(process.communicate(timeout=300)[0].count("asked") for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert asked == [0, 16]
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
