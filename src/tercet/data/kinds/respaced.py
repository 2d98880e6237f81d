"""The same text under another spacing and casing, since users' text comes so.

tokenized   blanks around punctuation, hyphens as " @-@ ", quotation marks `` and '', all on one line
lower       lower case, all on one line
wrapped     lines broken at 72 columns
bare        lower case without punctuation, as speech is written down
"""

from __future__ import annotations

import hashlib
import re
import textwrap

__all__ = ["NAME", "STYLES", "respaced", "restyled"]

NAME = "respaced"
SHARE = 6  # one document of so many is told in another style
STYLES = ("tokenized", "lower", "wrapped", "bare")


def respaced(title: str, text: str) -> str | None:
    """The document in the style that its title's hash says; None for most."""
    digest = hashlib.sha256(title.encode()).digest()
    return None if digest[1] % SHARE else restyled(text, STYLES[digest[2] % len(STYLES)])


def restyled(text: str, style: str) -> str:
    """The text in one of `STYLES`."""
    if style == "wrapped":
        return "\n".join(textwrap.fill(line, 72) for line in text.split("\n"))
    line = " ".join(text.split())
    if style == "tokenized":
        line = re.sub(r'(^|(?<=[\s(\[]))"', "`` ", line).replace('"', " ''")
        line = re.sub(r"(?<=\w)-(?=\w)", " @-@ ", line)
        line = re.sub(r"(?<=\d)([.,])(?=\d)", r" @\1@ ", line)
        line = re.sub(r"(?<!@)([,;:.!?()\[\]])(?!@)", r" \1 ", line)
        return " ".join(line.split())
    line = line.lower()
    return line if style == "lower" else " ".join(re.sub(r"[^\w\s']", " ", line).split())
