"""The weights' bytes in memory: the file mapped, or a copy of it, in huge pages where the system gives them.

A page table entry for each 4 kB slows a GEMV that streams from memory. The system is asked before the first touch,
because pages that are already mapped small stay small; whether it complies depends on how the file lies in the page
cache.
"""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import numpy as np

from tercet.errors import FormatError

__all__ = ["huge_share", "load", "map_file", "release"]

HUGE = 2 << 20
RANGE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
COUNTED = ("Rss", "AnonHugePages", "FilePmdMapped")


def map_file(descriptor: int) -> memoryview:
    """The file's bytes, read as they are touched."""
    data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    _ask_for_huge_pages(data)
    return memoryview(data)


def load(descriptor: int, where: str) -> memoryview:
    """The file's bytes, all read now, at a multiple of a huge page. Raises FormatError where the file ends early."""
    size = os.fstat(descriptor).st_size
    room = mmap.mmap(-1, -(-size // HUGE) * HUGE + HUGE, flags=mmap.MAP_PRIVATE)
    _ask_for_huge_pages(room)
    start = -_address(memoryview(room)) % HUGE
    data = memoryview(room)[start : start + size]
    done = 0
    while done < size:
        count = os.preadv(descriptor, [data[done : done + (64 << 20)]], done)
        if not count:
            raise FormatError(f"{where}: ends after {done} of {size} bytes; another process has shortened it")
        done += count
    return data.toreadonly()


def release(data: memoryview) -> None:
    """Let go of the pages of a mapped file that were read; they are read again where they are needed."""
    if isinstance(data.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.obj.madvise(mmap.MADV_DONTNEED)


def huge_share(data: memoryview) -> float | None:
    """The share of the pages of `data` in memory that are huge; None where the system does not tell, or none is."""
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    first = _address(data)
    last = first + len(data)
    kilobytes = dict.fromkeys(COUNTED, 0)
    inside = False
    for line in text.splitlines():
        if found := RANGE.match(line):
            inside = int(found[1], 16) < last and int(found[2], 16) > first
        elif inside and (name := line.split(":")[0]) in kilobytes:
            kilobytes[name] += int(line.split()[1])
    huge = kilobytes["AnonHugePages"] + kilobytes["FilePmdMapped"]
    return huge / kilobytes["Rss"] if kilobytes["Rss"] else None


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


def _ask_for_huge_pages(data: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            data.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them
            return
