"""Text to ids and back, with the tokenizers library alone.

What a user writes can never become a control token: in plain text special tokens are not matched at all; in a chat
those that touch a user's words are not (`tercet.runtime.text.guard`). All other ids are exactly those of transformers'
apply_chat_template.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from tercet.artifact import ModelFolder
from tercet.errors import EngineError, FormatError
from tercet.runtime.locks import ForkLock
from tercet.runtime.text.chat import render
from tercet.runtime.text.guard import Guard, Span
from tercet.runtime.text.streaming import StreamDecoder
from tercet.runtime.text.tokenizer_file import NAME, read_tokenizer, reported, without_settings

__all__ = ["Tokenizer"]

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")  # templates may name them
OURS = ("messages", "add_generation_prompt", *NAMED_TOKENS)


class Tokenizer:
    """A model's tokenizer.

    Attributes:
        chat_template: jinja source, or None.
        eos_ids: tokens that end a generation.
        special_ids: tokens that are no text.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any], eos_ids: Iterable[int]) -> None:
        without_settings(tokenizer)
        self._tokenizer = tokenizer
        self._lock = ForkLock()  # guards the switch between matching special tokens and not
        self._tokens = {name: _content(settings.get(name)) for name in NAMED_TOKENS}
        self.chat_template = _template(settings.get("chat_template"))
        end = tokenizer.token_to_id(self._tokens["eos_token"] or "")
        self.eos_ids: list[int] = sorted({*eos_ids, *([] if end is None else [end])})
        special = {id: token.content for id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        self.special_ids = frozenset(special)
        self._special = sorted(special.values(), key=len, reverse=True)
        self._unknown = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "")

    @classmethod
    def open(cls, folder: Path | str) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and config.json's generation settings from a model folder.

        Raises FormatError where one is missing or damaged.
        """
        files = ModelFolder(folder)
        tokenizer = read_tokenizer(files)
        generation = files.json("config.json").get("generation")
        eos = generation.get("eos_token_id") if isinstance(generation, dict) else None
        eos_ids = eos if isinstance(eos, list) else [eos]
        return cls(tokenizer, files.json("tokenizer_config.json"), [i for i in eos_ids if type(i) is int])

    @property
    def vocab_size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, around: bool = True) -> list[int]:
        """Ids of a text, in which no special token counts.

        Args:
            around: with the special tokens that the tokenizer itself puts around a text.

        Raises EngineError for half a surrogate pair, FormatError where the tokenizer fails.
        """
        return self._encoded(text, special=False, around=around).ids

    def prefix(self) -> list[int]:
        """What the tokenizer puts in front of every text: a BOS, or nothing.

        The post-processor is asked, with a text of one token: of an empty text it would not be known what stands in
        front and what behind.
        """
        plain = (self._encoded(text, special=True) for text in self._probes())
        probe = next((encoding for encoding in plain if encoding.ids), None)
        if probe is None:
            raise FormatError(f"{NAME}: it makes no token of any text; get the file again")
        with reported(f"{NAME}: post_processor"):
            found = self._tokenizer.post_process(probe)
        return found.ids[: found.sequence_ids.index(0)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD. Raises EngineError for ids out of range."""
        try:
            with reported(f"{NAME}: decoder"):
                return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)
        except (OverflowError, TypeError):
            raise EngineError("a token id is negative or too large to decode") from None

    def apply_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a conversation by the model's own template, ready to be answered.

        Args:
            messages: {"role", "content"} each, and whatever else the template reads; plain JSON values.
            arguments: more that the template reads, such as {"enable_thinking": False}.

        Raises FormatError where there is no template, or it refuses these messages or exceeds a cap; EngineError for an
        argument whose name is taken.
        """
        if self.chat_template is None:
            raise FormatError("the model has no chat template; give a plain prompt instead")
        if taken := sorted({*(arguments or {})}.intersection(OURS)):
            raise EngineError(f"the template's {taken[0]} is not an argument of the user's; leave it out")
        guard = Guard(self._special, self._found)
        variables: dict[str, Any] = {name: token for name, token in self._tokens.items() if token is not None}
        variables |= guard.hide(dict(arguments or {}))
        variables |= {"messages": guard.hide(list(messages)), "add_generation_prompt": add_generation_prompt}
        return self._encode_guarded(*guard.restore(render(self.chat_template, variables)))

    def stream(self, stop: Sequence[str] = ()) -> StreamDecoder:
        """A decoder for one generation."""
        return StreamDecoder(self, stop)

    def _probes(self) -> Iterator[str]:
        """Texts of which one at least has a token."""
        yield "a"
        yield from self._special
        yield from self._tokenizer.get_vocab()

    def _encode_guarded(self, text: str, theirs: Sequence[Span]) -> list[int]:
        """Ids of a text with special tokens, except where one touches what is a user's.

        There the text between the special tokens before and behind is encoded as text.
        """
        whole = self._encoded(text, special=True)
        marked = bytearray(len(text))
        for start, end in theirs:
            marked[start:end] = b"\1" * (end - start)
        matches = self._matches(whole, text)
        if not any(any(marked[start:end]) for start, end in matches):
            return whole.ids
        ids: list[int] = []
        done = begin = 0  # of `text`: what is encoded; where the last special token ended
        plain = False
        for start, end in [*matches, (len(text), len(text))]:
            if any(marked[start:end]):
                plain = True
                continue
            if plain:
                ids += self._encoded(text[done:begin], special=True).ids
                ids += self._encoded(text[begin:start], special=False).ids
                done, plain = start, False
            begin = end
        return ids + self._encoded(text[done:], special=True).ids

    def _found(self, text: str) -> list[Span]:
        return self._matches(self._encoded(text, special=True), text)

    def _matches(self, encoding: tokenizers.Encoding, text: str) -> list[Span]:
        """Where special tokens were found in a text; a character without a token, which has one's id, is none."""
        name = self._tokenizer.id_to_token
        return [
            (start, end)
            for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if token in self.special_ids and (token != self._unknown or text[start:end].strip() == name(token))
        ]

    def _encoded(self, text: str, *, special: bool, around: bool = False) -> tokenizers.Encoding:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise EngineError("the text holds half a surrogate pair; give valid Unicode") from None
        with self._lock, reported(f"{NAME}: it cannot read this text"):
            self._tokenizer.encode_special_tokens = not special
            return self._tokenizer.encode(text, add_special_tokens=around)


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _template(value: Any) -> str | None:
    """A template, or the one named default of a list of them."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
