"""Conversations: questions and answers of chatterbot-corpus 1.3.3 (PyPI, BSD 3-clause), a document each.

conversations:
- - My laptop screen is black.
  - Try adjusting brightness or connecting an external monitor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tercet.data.packages import wheel_members
from tercet.errors import FormatError

__all__ = ["documents"]

WHEEL = "chatterbot-corpus==1.3.3"
SHA256 = "86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154"
SPEAKERS = ("User", "Assistant")


def documents() -> Iterator[tuple[str, str]]:
    """(first words, text) of each conversation; raises ModelError, FormatError where the package is not to be had."""
    seen = set()
    for path, raw in wheel_members(WHEEL, SHA256, "0.3 MB", _wanted):
        try:
            found: Any = yaml.safe_load(raw.decode("utf-8"))
            talks = [[str(turn).strip() for turn in talk] for talk in found["conversations"]]
        except (KeyError, TypeError, UnicodeDecodeError, yaml.YAMLError):
            raise FormatError(f"{path}: not the list of conversations that was expected; get it again") from None
        for turns in talks:
            if turns[-1] not in seen:  # an answer that comes again would be in two splits
                seen.add(turns[-1])
                yield turns[0], "\n".join(f"{SPEAKERS[index % 2]}: {turn}" for index, turn in enumerate(turns))


def _wanted(path: str) -> bool:
    return path.startswith("chatterbot_corpus/data/english/") and path.endswith(".yml")
