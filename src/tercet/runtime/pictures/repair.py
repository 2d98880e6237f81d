"""Captions as open_clip's tokenizers clean them before anything else.

    repaired by ftfy, HTML's entities resolved twice, no blanks at the ends; then one of
    whitespace     single blanks
    lower          single blanks, lower case: what its own vocabulary is used with
    canonicalize   no punctuation, lower case, single blanks

A text of ASCII letters has nothing to repair, so ftfy is asked only where there is something else.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable

from tercet.errors import EngineError

__all__ = ["CLEANERS"]

PUNCTUATION = str.maketrans("", "", string.punctuation)


def _repaired(text: str) -> str:
    if not (text.isascii() and text.isprintable() and "&" not in text):
        try:
            import ftfy
        except ImportError:
            raise EngineError(
                f"this model reads captions repaired, and {text[:40]!r} needs it; pip install 'tercet[images]'"
            ) from None
        text = ftfy.fix_text(text)
    return html.unescape(html.unescape(text)).strip()


def _whitespace(text: str) -> str:
    return " ".join(_repaired(text).split())


def _lower(text: str) -> str:
    return _whitespace(text).lower()


def _canonicalize(text: str) -> str:
    return " ".join(_repaired(text).replace("_", " ").translate(PUNCTUATION).lower().split())


CLEANERS: dict[str, Callable[[str], str]] = {
    "whitespace": _whitespace,
    "lower": _lower,
    "canonicalize": _canonicalize,
}
