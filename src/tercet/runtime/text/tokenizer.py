"""Text to ids and back, with the tokenizers library alone.

What a user writes can never become a control token: in plain text special tokens are not matched at all; in a chat the
special tokens that stand in the messages are replaced by placeholders nobody can guess before the template sees them,
and come back as plain text. Without such tokens the ids are exactly those of transformers' apply_chat_template.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tercet.errors import EngineError, FormatError
from tercet.runtime.locks import ForkLock
from tercet.runtime.text.chat import render

__all__ = ["StreamDecoder", "Tokenizer", "read_tokenizer"]

MAX_FILE = 256 << 20
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # templates may name them
PENDING = 16  # tokens after which text that is no UTF-8 is shown with replacement characters
REPLACEMENT = "\ufffd"


def read_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """tokenizer.json of a model folder. Raises FormatError."""
    path = folder / "tokenizer.json"
    try:
        if path.stat().st_size > MAX_FILE:
            raise FormatError(f"{path}: more than {MAX_FILE >> 20} MB; this is no tokenizer")
        return tokenizers.Tokenizer.from_file(str(path))
    except FormatError:
        raise
    except Exception as error:  # the library raises bare Exception
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: {reason}; the tokenizer in its fast format belongs there") from None


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        chat_template: jinja source, or None.
        eos_ids: tokens that end a generation.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any], eos_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._lock = ForkLock()  # guards the switch between matching special tokens and not
        self._tokens = {name: _content(settings.get(name)) for name in NAMED_TOKENS}
        self.chat_template = _template(settings.get("chat_template"))
        end = tokenizer.token_to_id(self._tokens["eos_token"] or "")
        self.eos_ids: list[int] = sorted({*eos_ids, *([] if end is None else [end])})
        added = tokenizer.get_added_tokens_decoder()
        self._special = sorted((token.content for token in added.values() if token.special), key=len, reverse=True)

    @classmethod
    def open(cls, folder: Path | str) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and config.json's generation settings from a model folder.

        Raises FormatError where one is missing or damaged.
        """
        folder = Path(folder)
        tokenizer = read_tokenizer(folder)
        generation = _object(_json(folder / "config.json").get("generation"))
        eos = generation.get("eos_token_id")
        eos_ids = eos if isinstance(eos, list) else [eos]
        return cls(tokenizer, _json(folder / "tokenizer_config.json"), [i for i in eos_ids if isinstance(i, int)])

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, around: bool = True) -> list[int]:
        """Ids of a text, in which no special token counts.

        Args:
            around: with the special tokens that the tokenizer itself puts around a text.
        """
        return self._encode(text, special=False, around=around)

    def prefix(self) -> list[int]:
        """What the tokenizer puts in front of every text: a BOS, or nothing.

        The post-processor is asked, with a text of one token: of an empty text it would not be known what stands in
        front and what behind.
        """
        with self._lock:
            self._tokenizer.encode_special_tokens = False
            plain = (self._tokenizer.encode(text, add_special_tokens=False) for text in self._probes())
            probe = next((encoding for encoding in plain if encoding.ids), None)
            if probe is None:
                raise FormatError("tokenizer.json: it makes no token of any text; get the file again")
            found = self._tokenizer.post_process(probe)
        return found.ids[: found.sequence_ids.index(0)]

    def _probes(self) -> Iterator[str]:
        """Texts of which one at least has a token."""
        yield "a"
        yield from self._special
        yield from self._tokenizer.get_vocab()

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD. Raises EngineError for ids out of range."""
        try:
            return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        except (OverflowError, TypeError):
            raise EngineError("a token id is negative or too large to decode") from None

    def apply_chat(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> list[int]:
        """Ids of a conversation by the model's own template, ready to be answered.

        Args:
            messages: {"role", "content"} each, and whatever else the template reads; plain JSON values.

        Raises FormatError where there is no template, or it refuses these messages or exceeds a cap.
        """
        if self.chat_template is None:
            raise FormatError("the model has no chat template; give a plain prompt instead")
        guard = _Guard(self._special)
        variables: dict[str, Any] = {name: token for name, token in self._tokens.items() if token is not None}
        variables.update(messages=guard.hide(list(messages)), add_generation_prompt=add_generation_prompt)
        text = render(self.chat_template, variables)
        ids: list[int] = []
        for piece, hidden in guard.split(text):
            ids.extend(self._encode(piece, special=not hidden, around=False))
        return ids

    def stream(self, stop: Sequence[str] = ()) -> StreamDecoder:
        """A decoder for one generation."""
        return StreamDecoder(self, stop)

    def _encode(self, text: str, *, special: bool, around: bool) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise EngineError("the text holds half a surrogate pair; give valid Unicode") from None
        with self._lock:
            self._tokenizer.encode_special_tokens = not special
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=around).ids
        return ids


class StreamDecoder:
    """Text as it comes, never half a character, never a stop string or what may become one.

    Attributes:
        stopped: a stop string has come; everything before it has been given out.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        if any(not text for text in stop):
            raise EngineError("an empty stop string; leave it out")
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []  # those whose text may still change, after some that give them context
        self._shown = 0  # how many of them are given out as text
        self._held = ""  # decoded, but perhaps the start of a stop string
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that the next token makes certain; "" where there is none yet."""
        if self.stopped:
            return ""
        self._ids.append(token)
        before = self._tokenizer.decode(self._ids[: self._shown])
        after = self._tokenizer.decode(self._ids)
        # Half a character at the end decodes to U+FFFD: wait for the rest, but not forever.
        if after.endswith(REPLACEMENT) and len(self._ids) - self._shown < PENDING:
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return self._release(after[len(before) :])

    def finish(self) -> str:
        """The rest: what was held back in case more came."""
        if self.stopped:
            return ""
        before = self._tokenizer.decode(self._ids[: self._shown])
        rest = self._release(self._tokenizer.decode(self._ids)[len(before) :])
        if not self.stopped:
            rest += self._held
        self._held = ""
        self._ids, self._shown = [], 0
        return rest

    def _release(self, text: str) -> str:
        self._held += text
        # The stop string that is complete first, so that it does not matter how the text falls into tokens.
        found = [
            (self._held.find(stop) + len(stop), self._held.find(stop)) for stop in self._stop if stop in self._held
        ]
        if found:
            self.stopped = True
            cut = min(found)[1]
        else:
            cut = len(self._held) - max((_overlap(self._held, stop) for stop in self._stop), default=0)
        ready, self._held = self._held[:cut], self._held[cut:]
        return ready


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of `text` that may be the start of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class _Guard:
    """Hides special tokens in users' strings behind placeholders, and finds them again in the rendered text."""

    def __init__(self, special: Sequence[str]) -> None:
        self._special = special
        self._pattern = re.compile("|".join(map(re.escape, special))) if special else None
        self._key = secrets.token_hex(16)
        self._hidden: list[str] = []

    def hide(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._hide_text(value)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.hide(item) for item in value]
        return value

    def split(self, text: str) -> list[tuple[str, bool]]:
        """(piece, was hidden) in order, empty pieces left out."""
        pieces = re.split(f"{self._key}-([0-9]+);", text)
        restored = [(self._hidden[int(p)], True) if i % 2 else (p, False) for i, p in enumerate(pieces)]
        return [(piece, hidden) for piece, hidden in restored if piece]

    def _hide_text(self, text: str) -> str:
        inner = text.strip()  # templates may trim
        if not inner or self._pattern is None:
            return text
        # Edges that the template's own characters could complete to a special token are hidden too.
        head = max(_overlap(inner[::-1], token[::-1]) for token in self._special)
        tail = max(_overlap(inner[head:], token) for token in self._special)
        middle = inner[head : len(inner) - tail]
        middle = self._pattern.sub(lambda match: self._placeholder(match.group()), middle)
        hidden = self._placeholder(inner[:head]) + middle + self._placeholder(inner[head:][len(inner) - head - tail :])
        start = text.find(inner)
        return text[:start] + hidden + text[start + len(inner) :]

    def _placeholder(self, text: str) -> str:
        if not text:
            return ""
        self._hidden.append(text)
        return f"{self._key}-{len(self._hidden) - 1};"


def _json(path: Path) -> dict[str, Any]:
    try:
        return _object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: {str(error).splitlines()[0] if str(error) else 'not JSON'}") from None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _template(value: Any) -> str | None:
    """A template, or the one named default of a list of them."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
