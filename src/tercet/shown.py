"""Names that nobody vouches for (of files, tensors, recipes, classes), made harmless where they are shown.

A name may hold control sequences of a terminal, TeX that a plot would set, or Markdown and HTML that a card would; here
it becomes text again. HTML pages have `html.escape`.
"""

from __future__ import annotations

import re

__all__ = ["in_markdown", "in_plot", "printable"]

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def printable(text: str) -> str:
    """One line for a terminal: what is no printable character (controls, halves of surrogates) becomes "?"."""
    return "".join(c if c.isprintable() else "?" for c in text)


def in_plot(text: str) -> str:
    """A label for matplotlib, which would read what stands between two dollar signs as TeX."""
    return printable(text).replace("$", r"\$")


def in_markdown(text: str) -> str:
    """One line of Markdown that shows the text as it is."""
    return MARKDOWN.sub(r"\\\1", printable(text))
