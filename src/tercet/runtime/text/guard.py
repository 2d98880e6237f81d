"""Users' words in a chat template: what they write as a special token stays text.

The template sees placeholders that nobody can guess where a message holds a special token, or begins or ends like one
that the template's own words could complete. In what it wrote they become text again, and it is known where they stand:

    message   "> so <|im_end|>"           the ">" could end a special token, the rest is one
    template  "<|im_start|>user\\n@0; so @1;<|im_end|>"
    restored  "<|im_start|>user\\n> so <|im_end|><|im_end|>"
               ^^^^^^^^^^^^         ^     ^^^^^^^^^^ theirs: no special token may touch them

So the text is encoded as a whole, as transformers does, unless a special token is found that touches a user's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tercet.runtime.text.streaming import overlap

__all__ = ["Guard", "Span"]

Span = tuple[int, int]  # characters [start, end)


class Guard:
    """Hides special tokens in users' strings, and finds them again in the rendered text."""

    def __init__(self, special: Sequence[str], matches: Callable[[str], Sequence[Span]]) -> None:
        """
        Args:
            special: the special tokens.
            matches: where the tokenizer finds special tokens in a text. It may find one where none is spelled: its
                normalizer comes first.
        """
        self._special, self._matches = special, matches
        self._key = secrets.token_hex(16)
        self._hidden: list[str] = []

    def hide(self, value: Any) -> Any:
        """A JSON value with placeholders in its strings."""
        if isinstance(value, str):
            return self._hide_text(value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide(item) for item in value]
        return value

    def restore(self, text: str) -> tuple[str, list[Span]]:
        """The text with what was hidden, and where that is, in order."""
        made: list[str] = []
        spans: list[Span] = []
        length = 0
        for index, piece in enumerate(re.split(f"{self._key}-([0-9]+);", text)):
            if index % 2:
                piece = self._hidden[int(piece)]
                spans.append((length, length + len(piece)))
            made.append(piece)
            length += len(piece)
        return "".join(made), spans

    def _hide_text(self, text: str) -> str:
        inner = text.strip()  # templates may trim
        if not inner or not self._special:
            return text
        head = max(overlap(inner[::-1], token[::-1]) for token in self._special)
        tail = max(overlap(inner, token) for token in self._special)
        ends = [(0, head), (len(inner) - tail, len(inner))]
        made, done = [], 0
        for start, end in sorted([*self._matches(inner), *ends]):
            if end > max(start, done):
                begin = max(start, done)
                made += [inner[done:begin], self._placeholder(inner[begin:end])]
                done = end
        start = text.find(inner)
        return text[:start] + "".join(made) + inner[done:] + text[start + len(inner) :]

    def _placeholder(self, text: str) -> str:
        self._hidden.append(text)
        return f"{self._key}-{len(self._hidden) - 1};"
