"""Which windows a step reads: a function of its number alone, every window once an epoch, shared among processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import training
from tercet.errors import TrainError
from tercet.train.data import Batches


def batches(count: int, batch: int, accumulation: int, seed: int = 0, process: int = 0, processes: int = 1) -> Batches:
    made = training.settings(batch=batch, accumulation=accumulation, seed=seed)
    return Batches({"ids": np.arange(count)[:, None]}, made, process, processes)


def stream(made: Batches, steps: int) -> list[int]:
    """The windows read by this process in so many steps."""
    return [int(row) for step in range(steps) for batch in made(step) for row in batch["ids"]]


sizes = st.tuples(st.integers(1, 30), st.integers(1, 6), st.integers(1, 4))


@settings(deadline=None)
@given(sizes, st.integers(0, 2**63 - 1))
def test_every_window_once_an_epoch(size: tuple[int, int, int], seed: int) -> None:
    count, batch, accumulation = size
    read = stream(batches(*size, seed), -(-3 * count // (batch * accumulation)))
    for epoch in range(3):
        assert sorted(read[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None)
@given(sizes)
def test_the_order_depends_on_seed_and_epoch_alone(size: tuple[int, int, int]) -> None:
    read = stream(batches(*size), 4)
    assert read == stream(batches(size[0], 1, 1), len(read))
    assert read[-1] == stream(batches(*size), 4)[-1]


def test_epochs_and_seeds_differ() -> None:
    read = stream(batches(64, 64, 1), 2)
    assert read[:64] != read[64:]
    assert read != stream(batches(64, 64, 1, seed=1), 2)


@settings(deadline=None)
@given(sizes, st.integers(1, 4))
def test_processes_share_each_batch(size: tuple[int, int, int], processes: int) -> None:
    count, each, accumulation = size
    batch = each * processes
    parts = [batches(count, batch, accumulation, process=p, processes=processes) for p in range(processes)]
    for step in range(3):
        shared = [torch.cat([b["ids"] for b in passes]) for passes in zip(*(p(step) for p in parts), strict=True)]
        whole = [b["ids"] for b in batches(count, batch, accumulation)(step)]
        assert all(torch.equal(a, b) for a, b in zip(shared, whole, strict=True))


def test_other_arrays_come_along() -> None:
    ids, values = np.arange(10)[:, None], np.arange(10, dtype=np.float16)[:, None, None] * 2
    for batch in Batches({"ids": ids, "values": values}, training.settings())(1):
        assert torch.equal(batch["values"].flatten(), 2 * batch["ids"].flatten().half())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(TrainError, match="batch of 3 windows does not divide among 2 processes"):
        batches(5, 3, 1, processes=2)
    with pytest.raises(TrainError, match=r"windows are \[0, 1\]"):
        batches(0, 1, 1)
    with pytest.raises(TrainError, match="values has rows for 3 windows, and there are 2"):
        Batches({"ids": np.zeros((2, 4)), "values": np.zeros(3)}, training.settings())
