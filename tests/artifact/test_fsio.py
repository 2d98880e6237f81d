"""The old file or the new one, whole, whatever fails: a fault at every system call that writes, and a kill at each."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folders
from faults import FaultyOs, faults
from tercet import fsio
from tercet.artifact import Artifact, is_artifact
from tercet.errors import StorageError


def state(folder: Path) -> str | None:
    if not folder.exists():
        return None
    return str(Artifact.open(folder, check=True).config["source"]["name"]) if any(folder.iterdir()) else "empty"


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
@pytest.mark.parametrize("before", [None, "empty", "old"])
def test_a_folder_is_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, exchange: bool
) -> None:
    folder, states = tmp_path / "model", set()
    for faulty in faults(monkeypatch, exchange, OSError(errno.EIO, "?")):
        fsio._remove(folder)
        if before == "empty":
            folder.mkdir()
        elif before == "old":
            with monkeypatch.context() as healthy:
                healthy.setattr(fsio, "os", FaultyOs(0, AssertionError()))
                folders.save(folder, source={"name": "old"})
        faulty.calls = 0
        with contextlib.suppress(StorageError):
            folders.save(folder, source={"name": "new"})
            assert faulty.calls < faulty.fail_at or state(folder) == "new"
        states.add(state(folder))
        hidden = [path.name for path in tmp_path.iterdir() if path != folder]
        # Moving back can fail too, then the next writer does it; nothing else stays.
        assert all(".old-" in name for name in hidden)
        assert state(folder) in (before, "new")
    assert states == {before, "new"}


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    folders.save(tmp_path / "model", source={"name": "old"})
    for _ in faults(monkeypatch, exchange, KeyboardInterrupt()):
        try:
            folders.save(tmp_path / "model", source={"name": "new"})
        except KeyboardInterrupt:
            assert [path.name for path in tmp_path.iterdir()] == ["model"]
            assert state(tmp_path / "model") in ("old", "new")
    assert state(tmp_path / "model") == "new"


def test_a_file_is_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", set()
    for faulty in faults(monkeypatch, True, OSError(errno.ENOSPC, "full")):
        path.write_bytes(b"old")
        with contextlib.suppress(StorageError):
            fsio.atomic_file(path, b"new")
            assert faulty.calls < faulty.fail_at
        assert [found.name for found in tmp_path.iterdir()] == ["file"]
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new"}


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "check the disk"),
        (errno.EPERM, "choose a folder you may write to"),
    ],
)
def test_the_error_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str) -> None:
    monkeypatch.setattr(fsio, "os", FaultyOs(5, OSError(code, "?")))
    with pytest.raises(StorageError) as caught:
        folders.save(tmp_path / "model")
    message = str(caught.value)
    assert message.startswith(f"cannot write {tmp_path}")
    assert f": {os.strerror(code)}; {hint}" in message
    assert "\n" not in message


@pytest.mark.parametrize("exchange", ["exchange", "two renames"])
def test_killed_at_any_point(tmp_path: Path, exchange: str) -> None:
    script = Path(__file__).with_name("killed_save.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(script), str(tmp_path / "model"), exchange]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15  # places where it was killed


def test_a_file_size_limit_is_one_line(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    try:
        with pytest.raises(StorageError, match="File too large; raise the file size limit"):
            folders.save(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_what_is_not_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("more")
    with pytest.raises(StorageError, match="something else is there"):
        folders.save(tmp_path / "model")
    with pytest.raises(StorageError, match="a file is there"):
        folders.save(tmp_path / "file")
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(StorageError, match="something else is there"):
        folders.save(tmp_path / "model")
    assert (tmp_path / "model/thesis.txt").read_text() == "years of work"
    assert not is_artifact(tmp_path / "model")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to("place")
    folders.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert is_artifact(tmp_path / "place")


def test_another_writers_temporary_is_left_alone(tmp_path: Path) -> None:
    stale = tmp_path / ".model.tmp-0123456789ab"
    stale.mkdir()
    with fsio.atomic_folder(tmp_path / "model", replaces=is_artifact) as first:
        assert not stale.exists()
        folders.save(tmp_path / "model", source={"name": "second"})
        assert first.exists()
        fsio.write_file(first / "config.json", b'{"format": "tercet"}')
    assert (tmp_path / "model/config.json").read_bytes() == b'{"format": "tercet"}'
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_chunks_are_large_and_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    class ShortOs:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, descriptor: int, chunk: memoryview) -> int:
            sizes.append(len(chunk))
            return os.write(descriptor, chunk[: max(1, len(chunk) - 1)])

    pieces = [b"", b"a" * 3, np.arange(2**20, dtype=np.float32), np.zeros((3, 5), np.float16), b"z" * (5 << 20)]
    expected = b"".join(piece if isinstance(piece, bytes) else piece.tobytes() for piece in pieces)
    monkeypatch.setattr(fsio, "os", ShortOs())
    fsio.atomic_file(tmp_path / "deep/er/file", iter(pieces))
    assert (tmp_path / "deep/er/file").read_bytes() == expected
    first_tries = [size for size in sizes if size > 1]
    assert first_tries[:-1] == [4 << 20] * (len(expected) // (4 << 20))


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    for name, message in {"pipe": "device or pipe", "link": "device or pipe", "folder": "a folder is there"}.items():
        for write in (fsio.check_file, lambda path: fsio.atomic_file(path, b"x")):
            with pytest.raises(StorageError, match=message):
                write(tmp_path / name)
    with pytest.raises(StorageError, match="no name of a file"):
        fsio.atomic_file(tmp_path / "a\0b", b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "volume")
    with pytest.raises(StorageError, match="something is mounted there; choose a name inside it"):
        fsio.check_folder(tmp_path / "volume", replaces=is_artifact)
    with (
        pytest.raises(StorageError, match="mounted"),
        fsio.atomic_folder(tmp_path / "volume", replaces=is_artifact),
    ):
        pytest.fail("there was work")
    fsio.check_folder(tmp_path / "volume" / "model", replaces=is_artifact)


def test_mounts_of_the_same_disk_are_known_by_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = rb"1 2 0:3 / /data/my\040models rw - ext4 /dev/x rw"
    monkeypatch.setattr(Path, "read_bytes", lambda _: lines)
    with pytest.raises(StorageError, match="mounted"):
        fsio._refuse_mount(Path("/data/my models"))
    fsio._refuse_mount(Path("/data/mine"))


def test_a_place_that_cannot_be_written_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for check in (fsio.check_file, lambda path: fsio.check_folder(path, replaces=is_artifact)):
        with pytest.raises(StorageError, match="file is no folder"):
            check(tmp_path / "file" / "deep" / "out")
        check(tmp_path / "new" / "deep" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_files_that_belong_together_are_all_old_or_all_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    seen = set()
    for faulty in faults(monkeypatch, True, OSError(errno.ENOSPC, "?")):
        with monkeypatch.context() as healthy:
            healthy.setattr(fsio, "os", FaultyOs(0, AssertionError()))
            fsio.atomic_files({one: b"old", two: b"old"})
        faulty.calls = 0
        with contextlib.suppress(StorageError):
            fsio.atomic_files({one: b"new", two: b"new"})
        seen.add(tuple(path.read_bytes() if path.exists() else None for path in (one, two)))
        assert {path.name for path in tmp_path.iterdir()} <= {"one", "two"}
    assert {(b"old", b"old"), (b"new", b"new")} <= seen
    assert not seen & {(b"old", b"new"), (b"new", b"old")}
