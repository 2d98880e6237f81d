"""Weights in memory: mapped or copied, the same bytes, and how large their pages are."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

import folders
from tercet.artifact import Artifact
from tercet.artifact import mapped as memory
from tercet.errors import FormatError
from tercet.runtime import Engine

HUGE = 2 << 20


def _file(place: Path, size: int) -> int:
    place.write_bytes(np.random.default_rng(0).bytes(size))
    return os.open(place, os.O_RDONLY)


@pytest.mark.parametrize("size", [1, 4096, HUGE - 1, HUGE, 3 * HUGE + 5])
def test_a_copy_is_the_file(tmp_path: Path, size: int) -> None:
    descriptor = _file(tmp_path / "file", size)
    copy, mapped = memory.load(descriptor, "file"), memory.map_file(descriptor)
    os.close(descriptor)
    assert copy.readonly
    assert mapped.readonly
    assert copy == mapped == (tmp_path / "file").read_bytes()
    address = np.frombuffer(copy, np.uint8).ctypes.data
    assert address % HUGE == 0
    (tmp_path / "file").write_bytes(b"")
    assert len(bytes(copy)) == size  # it needs the file no more


def test_the_share_of_huge_pages(tmp_path: Path) -> None:
    descriptor = _file(tmp_path / "file", 8 * HUGE)
    copy = memory.load(descriptor, "file")
    os.close(descriptor)
    share = memory.huge_share(copy)
    assert share is not None
    offered = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    if "[never]" in offered:
        assert share == 0
    else:
        assert share > 0.8
    small = np.zeros(8 * HUGE, np.uint8)
    small[:] = 1
    untouched = memoryview(np.empty(8 * HUGE, np.uint8))
    assert memory.huge_share(untouched) is None or 0 <= memory.huge_share(untouched) <= 1


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = _file(tmp_path / "file", 5000)
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: 0 if at else real(fd, [into[0][:100]], at))
    with pytest.raises(FormatError, match="ends after 100 of 5000 bytes"):
        memory.load(descriptor, "file")
    os.close(descriptor)


def test_a_copied_model_gives_the_same_bits_and_can_be_verified(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folders.save(tmp_path / "model")
    copied = Artifact.open(tmp_path / "model", copy=True, check=True)
    with caplog.at_level(logging.INFO):
        expected = Engine.open(tmp_path / "model").logits([1, 2, 3])
        assert np.array_equal(Engine.open(tmp_path / "model", copy=True).logits([1, 2, 3]), expected)
        assert np.array_equal(Engine.open(copied).logits([1, 2, 3]), expected)
    told = [record.getMessage() for record in caplog.records if "huge pages" in record.getMessage()]
    assert len(told) == 3
    assert all("% of the weights lie in huge pages" in line for line in told)


@pytest.mark.parametrize("copy", [False, True])
def test_released_pages_are_read_again(copy: bool, tmp_path: Path) -> None:
    folders.save(tmp_path / "model")
    opened = Artifact.open(tmp_path / "model", copy=copy)
    opened.verify()
    opened.release()
    opened.verify()
