"""A checkpoint is whole or not there: whatever call fails, whichever byte is wrong."""

from __future__ import annotations

import contextlib
import errno
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from faults import faults
from tercet.errors import FormatError, StorageError
from tercet.train.checkpoint import Checkpoint, Checkpoints
from tercet.train.processes import Processes

PROCESSES = Processes()
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool)


def tensors(value: int) -> dict[str, Tensor]:
    return {f"t{index}": torch.full((3, index), value).to(dtype) for index, dtype in enumerate(DTYPES)} | {
        "step": torch.tensor(float(value))
    }


def save(checkpoints: Checkpoints, step: int) -> None:
    checkpoints.save(step, {"made_of": step}, {"weights": tensors(step), "optimizer": tensors(-step)}, PROCESSES)


def is_whole(checkpoint: Checkpoint | None, step: int) -> bool:
    assert checkpoint is not None
    for file, sign in (("weights", 1), ("optimizer", -1)):
        found = dict(checkpoint.tensors(file))
        expected = tensors(sign * step)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert all(found[name].dtype == expected[name].dtype for name in expected)
    return checkpoint.step == step and checkpoint.facts == {"made_of": step}


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "made")
    assert made.newest() is None
    for step in (9, 10, 123456789):
        save(made, step)
    assert names(made) == ["step-00000010", "step-123456789"]
    assert is_whole(made.newest(), 123456789)
    made.clear()
    assert names(made) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_any_call_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    made, failed = Checkpoints(tmp_path / "made"), 0
    for faulty in faults(monkeypatch, True, OSError(code, "?")):
        shutil.rmtree(made.folder, ignore_errors=True)
        with contextlib.suppress(StorageError):
            fail_at, faulty.fail_at = faulty.fail_at, 0
            save(made, 1)
            save(made, 2)
            faulty.calls, faulty.fail_at = 0, fail_at
            save(made, 3)
        if faulty.calls >= fail_at:
            failed += 1
            # The last calls are those that remove the oldest: the new one is there by then.
            assert is_whole(made.newest(), 3 if "step-00000003" in names(made) else 2)
            assert not [name for name in names(made) if name.startswith(".")] or "step-00000003" in names(made)
    assert failed > 10
    assert names(made) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("file", ["checkpoint.json", "weights.safetensors", "optimizer.safetensors"])
def test_a_damaged_one_is_left_out_with_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str) -> None:
    made = Checkpoints(tmp_path / "made")
    save(made, 1)
    save(made, 2)
    path = made.folder / "step-00000002" / file
    good = path.read_bytes()
    every = [good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :] for at in range(0, len(good), 7)]
    for bad in [b"", good[:-1], good[: len(good) // 2], good + b"\0", *every]:
        path.write_bytes(bad)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert is_whole(made.newest(), 1)
        (line,) = caplog.messages
        assert str(path.parent) in line
        assert "going on from step-00000001" in line
        assert "\n" not in line
    path.unlink()
    assert is_whole(made.newest(), 1)
    path.write_bytes(good)
    assert is_whole(made.newest(), 2)


def test_none_left(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "made")
    save(made, 1)
    (made.folder / "step-00000001/checkpoint.json").write_bytes(b"{}")
    with pytest.raises(FormatError, match="no other checkpoint is left"):
        made.newest()


def test_one_that_was_gone_back_from_does_not_come_again(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "made")
    for step in (1, 2):
        save(made, step)
    (made.folder / "step-00000002/weights.safetensors").unlink()
    (made.folder / "step-00000002").rename(made.folder / "step-00000009")
    save(made, 3)
    assert names(made) == ["step-00000001", "step-00000003"]


def test_a_renamed_one_is_refused(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "made")
    save(made, 1)
    (made.folder / "step-00000001").rename(made.folder / "step-00000007")
    with pytest.raises(FormatError, match="is of step 1"):
        made.newest()


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    made = Checkpoints(tmp_path / "made")
    save(made, 1)
    stale = made.folder / ".step-00000002.tmp-0123456789ab"
    shutil.copytree(made.folder / "step-00000001", stale)
    made.clean()
    assert names(made) == ["step-00000001"]
