"""The default text: a mixture of kinds, since a model calibrated on one does badly on others.

Each kind is a list of documents out of packages that are fetched on first use and never executed; documents are split
by the hash of their title, or by work, so that train, validation and test share none and never change.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tercet.data.kinds import dialogue, dictionary, narrative, respaced, technical
from tercet.data.text import SPLITS, Split, default_text, fetch_default_text
from tercet.errors import ModelError
from tercet.sources import cache

__all__ = ["KINDS", "default_texts", "split_of"]

Document = tuple[str, str]
VERSION = 2
ENCYCLOPEDIA = "encyclopedia"
MADE: dict[str, Callable[[], Iterable[Document]]] = {
    "technical": technical.documents,
    "dictionary": dictionary.documents,
    "narrative": narrative.documents,
    "dialogue": dialogue.documents,
}
RESPACED = respaced.NAME
KINDS = (ENCYCLOPEDIA, *MADE, RESPACED)


def default_texts(split: Split) -> dict[str, str] | None:
    """One split of each kind, in the order of `KINDS`, fetched on first use; None where one is neither cached nor to be
    had: of another mixture other numbers would come."""
    try:
        encyclopedia = default_text(split)
        if encyclopedia is None:
            return None
        folder = _fetched()
    except ModelError as error:
        print(f"no default text: {error}", file=sys.stderr)
        return None
    made = {kind: (folder / f"{kind}-{split}.txt").read_text(encoding="utf-8") for kind in KINDS[1:]}
    return {ENCYCLOPEDIA: encyclopedia, **made}


def split_of(title: str) -> Split:
    """Whose a document is: about 80, 10 and 10 % of the titles."""
    tenth = hashlib.sha256(title.encode()).digest()[0] % 10
    return {8: SPLITS[1], 9: SPLITS[2]}.get(tenth, SPLITS[0])


def _fetched() -> Path:
    fetch_default_text()
    return cache.entry("text", f"kinds-{VERSION}", _make)


def _make(folder: Path) -> None:
    parts: dict[str, list[str]] = {f"{kind}-{split}": [] for kind in KINDS[1:] for split in SPLITS}
    for kind, documents in MADE.items():
        for title, text in documents():
            split = narrative.split(title) if kind == "narrative" else split_of(title)
            other = respaced.respaced(title, text)
            parts[f"{kind if other is None else RESPACED}-{split}"].append(text if other is None else other)
    for name, texts in parts.items():
        (folder / f"{name}.txt").write_text("\n\n".join(texts) + "\n", encoding="utf-8")
