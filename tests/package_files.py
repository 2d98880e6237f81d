"""Debian and npm packages made in memory, hostile ones too."""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Iterable

Member = tuple[str, bytes] | tarfile.TarInfo


def tar(members: Iterable[Member]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return made.getvalue()


def link(name: str, to: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, to
    return made


def ar(members: Iterable[tuple[str, bytes]]) -> bytes:
    made = b"!<arch>\n"
    for name, content in members:
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


def deb(members: Iterable[Member]) -> bytes:
    control = lzma.compress(tar([("./control", b"Package: x")]))
    return ar([("debian-binary", b"2.0\n"), ("control.tar.xz", control), ("data.tar.xz", lzma.compress(tar(members)))])
