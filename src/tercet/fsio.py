"""The one way to disk: a file or folder is either the old one or the new one, whole.

Everything is written beside its place under a hidden temporary name, synced, renamed, and the parent folder synced. An
existing folder is exchanged with the new one in one system call where there is one (Linux); elsewhere it is moved aside
for the moment of a rename, and put back by the next writer if the process died just then.

The writer holds a lock on its temporary, which the kernel drops when the process ends, however it ends: so a temporary
that can be locked is stale, and the next writer of the same target removes it.

Files are written in chunks of 4 MiB: large, aligned extents let the page cache use huge pages for an mmap later.
"""

# System calls go by their names, each a place where a test injects a fault.
# ruff: noqa: PTH102, PTH104

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tercet.errors import StorageError

__all__ = [
    "append_file",
    "atomic_file",
    "atomic_files",
    "atomic_folder",
    "check_file",
    "check_folder",
    "lock_folder",
    "one_at_a_time",
    "remove_folder",
    "remove_stale",
    "sync_file",
    "user_path",
    "write_file",
]

CHUNK = 4 << 20

HINTS = {
    errno.ENOSPC: "free some space and run again",
    errno.EDQUOT: "free some of your quota and run again",
    errno.EFBIG: "raise the file size limit (ulimit -f)",
    errno.EIO: "check the disk",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
}

Data = bytes | Iterable[Any]  # bytes, or C-contiguous buffers one after the other


def atomic_file(path: str | Path, data: Data) -> None:
    """Writes a file, or replaces it, in one step; parent folders are made.

    Raises StorageError; then the old file, or none, is there. What is no regular file (a device, a pipe) is left alone.
    """
    atomic_files({path: data})


def atomic_files(contents: Mapping[str | Path, Data]) -> None:
    """Writes files that belong together: all are written beside their places before any takes its own.

    An old one never lies beside a new one: those after the first are gone for the moment of the renames.

    Raises StorageError as `atomic_file`; where writing failed, the old files are there.
    """
    targets = {_file_target(path): data for path, data in contents.items()}
    made: list[tuple[Path, Path, int]] = []
    try:
        for target, data in targets.items():
            with _reported(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove_stale(target)
                temporary, lock = _temporary(target, _create_file)
                made.append((temporary, target, lock))
                _write(lock, data)
                os.fsync(lock)
        for _, target, _ in made[1:]:
            with _reported(target):
                target.unlink(missing_ok=True)
        for temporary, target, _ in made:
            with _reported(target):
                os.rename(temporary, target)
                _sync(target.parent)
    except BaseException:
        for temporary, _, _ in made:
            _remove(temporary)
        raise
    finally:
        for _, _, lock in made:
            os.close(lock)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, replaces: Callable[[Path], bool]) -> Iterator[Path]:
    """Gives an empty temporary folder to fill; when the block ends well, it is at `path`, in one step.

    Args:
        path: the target; it may be missing or empty. Parent folders are made.
        replaces: whether a target that is not empty may be replaced.

    Raises StorageError; then, and when the block raises, what was at `path` is still there.
    """
    target = _target(path)
    with _reported(target):
        _restore(target)
        _check_target(target, replaces)
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(target)
        temporary, lock = _temporary(target, _create_folder)
    try:
        yield temporary
        with _reported(target):
            _sync_tree(temporary)
            _install(temporary, target)
            _sync(target.parent)
    finally:
        # By now this is what failed, or what was replaced, or nothing.
        _remove(temporary)
        os.close(lock)


def check_file(path: str | Path) -> None:
    """Raises StorageError where `atomic_file` would, as far as can be known before the work; nothing is written."""
    _check_parents(_file_target(path))


def check_folder(path: str | Path, *, replaces: Callable[[Path], bool]) -> None:
    """Raises StorageError where `atomic_folder` would, as far as can be known before the work; nothing is written."""
    target = _target(path)
    with _reported(target):
        _check_target(target, replaces)
        _check_parents(target)


def write_file(path: str | Path, data: Data) -> None:
    """Writes a new file inside an `atomic_folder`, which syncs it later. Raises StorageError."""
    with _reported(Path(path)):
        descriptor = _create_file(Path(path))
        try:
            _write(descriptor, data)
        finally:
            os.close(descriptor)


def append_file(path: str | Path, data: bytes) -> None:
    """Adds to the end of a file, or begins one; a failure may leave a part of `data` behind what was there.

    Raises StorageError. The bytes outlive this process, and the machine's after `sync_file`.
    """
    with _reported(Path(path)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)


def sync_file(path: str | Path) -> None:
    """Waits until a file's bytes are on the disk. Raises StorageError."""
    with _reported(Path(path)):
        _sync(Path(path))


@contextlib.contextmanager
def one_at_a_time(path: str | Path) -> Iterator[None]:
    """Other processes that come here with the same path wait; a lock file lies there meanwhile. Raises StorageError."""
    target = Path(path)
    with _reported(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        target.unlink(missing_ok=True)  # who waits for it finds the work done
        os.close(lock)


def lock_folder(path: str | Path, busy: str) -> int:
    """A descriptor that keeps other processes from the same folder until it is closed, or this process ends.

    The folder is made if need be. Raises StorageError, with `busy` as the reason, where another one has it.
    """
    target = Path(path)
    with _reported(target):
        target.mkdir(parents=True, exist_ok=True)
        lock = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StorageError(f"cannot write {target}: {busy}") from None
    except OSError:  # a file system without locks
        pass
    return lock


def user_path(text: str | Path) -> Path:
    """A path that a person has typed: "~" is the home folder, where there is one."""
    with contextlib.suppress(RuntimeError):
        return Path(text).expanduser()
    return Path(text)


def remove_folder(path: str | Path) -> None:
    """Removes a folder; while that lasts it has the name of a temporary, so that no half of it is taken for the whole.

    Raises StorageError where it cannot even be renamed.
    """
    with _reported(Path(path)):
        doomed = _sibling(Path(path), "tmp")
        os.rename(path, doomed)
        _remove(doomed)


def remove_stale(folder: str | Path) -> None:
    """Removes the temporaries in a folder whose writers are gone, whatever they were to become."""
    for path in Path(folder).glob(".*.tmp-" + "[0-9a-f]" * 12):
        _remove_if_stale(path)


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        hint = HINTS.get(error.errno or 0, "choose another place")
        raise StorageError(f"cannot write {path}: {reason}; {hint}") from error


def _write(descriptor: int, data: Data) -> None:
    waiting = bytearray()
    pieces: Iterable[Any] = [data] if isinstance(data, bytes) else data
    for piece in pieces:
        view = memoryview(piece)
        view = view.cast("B") if view.nbytes else memoryview(b"")
        for start in range(0, len(view), CHUNK):
            waiting += view[start : start + CHUNK]
            if len(waiting) >= CHUNK:
                _write_all(descriptor, bytes(waiting[:CHUNK]))
                del waiting[:CHUNK]
    _write_all(descriptor, bytes(waiting))


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _target(path: str | Path) -> Path:
    """Links followed. Raises StorageError for what no path can be."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        raise StorageError(f"cannot write {str(path)[:200]!r}: no name of a file; choose another name") from None


def _file_target(path: str | Path) -> Path:
    """Where a file goes, links followed. Raises StorageError where something is there that is no regular file."""
    target = _target(path)
    with _reported(target):
        try:
            mode = os.stat(path).st_mode  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            return target
    if stat.S_ISDIR(mode):
        raise StorageError(f"cannot write {path}: a folder is there; choose another name")
    if not stat.S_ISREG(mode):
        raise StorageError(f"cannot write {path}: a device or pipe is there, and is left alone; choose another name")
    _refuse_mount(target)
    return target


def _check_parents(target: Path) -> None:
    """Raises StorageError where the nearest folder that is there lets nobody write."""
    parent = next(each for each in target.parents if os.path.lexists(each))
    if not parent.is_dir():
        raise StorageError(f"cannot write {target}: {parent} is no folder; choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write {target}: no permission in {parent}; choose a folder you may write to")


def _refuse_mount(target: Path) -> None:
    """What is mounted (a container's volume) cannot be exchanged with what is written beside it."""
    mounted = os.path.ismount(target)
    with contextlib.suppress(OSError):  # a system without /proc; there, mounts of the same disk go unseen
        places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]
        escaped = re.sub(rb"[\\ \t\n]", lambda found: b"\\%03o" % found[0][0], os.fsencode(target))
        mounted = mounted or escaped in places
    if mounted:
        raise StorageError(f"cannot write {target}: something is mounted there; choose a name inside it")


def _check_target(target: Path, replaces: Callable[[Path], bool]) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise StorageError(f"cannot write {target}: a file is there; choose another name")
    if any(target.iterdir()) and not replaces(target):
        raise StorageError(f"cannot write {target}: something else is there, and is left alone; choose another name")
    _refuse_mount(target)


def _install(temporary: Path, target: Path) -> None:
    if not target.exists():
        os.rename(temporary, target)
    elif not _exchange(temporary, target):
        aside = _sibling(target, "old")
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(aside, target)
            raise
        _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two paths in one step; False where the system cannot."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if function(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))


def _restore(target: Path) -> None:
    """Puts back a folder whose writer died between moving it aside and moving the new one in."""
    for aside in sorted(target.parent.glob(_pattern(target, "old"))):
        if target.exists():
            _remove(aside)
        else:
            os.rename(aside, target)


def _remove_stale(target: Path) -> None:
    for path in target.parent.glob(_pattern(target, "tmp")):
        _remove_if_stale(path)


def _remove_if_stale(path: Path) -> None:
    with contextlib.suppress(OSError):
        lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(lock)


def _temporary(target: Path, create: Callable[[Path], int]) -> tuple[Path, int]:
    """A new temporary and the open descriptor that locks it."""
    path = _sibling(target, "tmp")
    try:
        lock = create(path)
    except BaseException:
        _remove(path)
        raise
    with contextlib.suppress(OSError):  # a file system without locks: then nobody takes it for stale either
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, lock


def _create_file(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _create_folder(path: Path) -> int:
    os.mkdir(path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _sibling(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name[:100]}.{kind}-{secrets.token_hex(6)}")


def _pattern(target: Path, kind: str) -> str:
    name = "".join(f"[{c}]" if c in "*?[" else c for c in target.name[:100])
    return f".{name}.{kind}-" + "[0-9a-f]" * 12


def _remove(path: Path) -> None:
    """Removes a file or a folder as far as possible; whatever stays is stale and goes next time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
