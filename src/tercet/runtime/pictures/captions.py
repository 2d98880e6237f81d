"""Texts as a CLIP-like model's text tower reads them: every row as long as the tower's context; no torch.

    CLIP        lower case (in tokenizer.json), <start> words <end>, cut so that <end> stays, filled with the pad token
    SigLIP      lower case, no punctuation, single spaces; words <eos>, filled with its pad token to 64: the tower has
                no mask and was trained that way, so the filling counts
    SigLIP 2    lower case; Gemma's tokenizer, filled to 64
    open_clip   as CLIP, but repaired and cleaned first (`repair`), filled with token 0

Lower case is not in every tokenizer.json that needs it: transformers does it in the class that tokenizer_config.json
names, so that name is what decides here. What open_clip does stands in its own config; a packed folder has it under
`open_clip` in tokenizer_config.json: {"clean": "lower", "pad_token_id": 0}.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray

from tercet.artifact import ModelFolder
from tercet.errors import EngineError, FormatError
from tercet.runtime.pictures.repair import CLEANERS
from tercet.runtime.text.tokenizer_file import read_tokenizer, reported, without_settings

__all__ = ["CaptionTokenizer"]

MAX_TEXT = 1 << 20  # characters; a caption has a hundred
PUNCTUATION = str.maketrans("", "", string.punctuation)


class CaptionTokenizer:
    """A text tower's tokenizer.

    Attributes:
        context: tokens in a row.
        pad: the token that fills it.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, settings: Mapping[str, Any], context: int) -> None:
        """
        Args:
            tokenizer: what tokenizer.json holds.
            settings: what tokenizer_config.json holds: pad_token, tokenizer_class, do_lower_case, open_clip.

        Raises FormatError where the pad token is missing, or `open_clip` is none of ours.
        """
        theirs = settings.get("open_clip")
        self._clean = None if theirs is None else _cleaner(theirs)
        kind = str(settings.get("tokenizer_class") or "") if theirs is None else ""
        self._lower = kind.startswith(("Siglip", "Gemma")) and settings.get("do_lower_case") is not False
        self._words_only = kind.startswith("Siglip") and not kind.startswith("Siglip2")
        self.context = context
        name = _content(settings.get("pad_token")) or _content(settings.get("eos_token"))
        if theirs is not None and "pad_token_id" in theirs:
            name = tokenizer.id_to_token(theirs["pad_token_id"])
        pad = None if name is None else tokenizer.token_to_id(name)
        if name is None or pad is None:
            raise FormatError("tokenizer_config.json: no pad_token that tokenizer.json knows; add the original's")
        self.pad: int = pad
        without_settings(tokenizer)
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a caption is text
        self._tokenizer.enable_truncation(context)
        self._tokenizer.enable_padding(length=context, pad_id=pad, pad_token=name)

    @classmethod
    def open(cls, folder: str | Path, context: int, settings: Mapping[str, Any] | None = None) -> CaptionTokenizer:
        """Reads tokenizer.json of a model folder, and tokenizer_config.json where no `settings` are given.

        Raises FormatError.
        """
        files = ModelFolder(folder)
        tokenizer = read_tokenizer(files)
        return cls(tokenizer, files.json("tokenizer_config.json") if settings is None else settings, context)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """int64[n, context]. Raises EngineError for a text of more than a million characters or half a surrogate."""
        prepared = [self._prepared(text) for text in texts]
        with reported("tokenizer.json: it cannot read these texts"):
            rows = self._tokenizer.encode_batch(prepared)
        return np.array([row.ids for row in rows], np.int64).reshape(len(texts), self.context)

    def _prepared(self, text: str) -> str:
        if len(text) > MAX_TEXT:
            raise EngineError(f"a text of {len(text)} characters; at most {MAX_TEXT} are read, cut it")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise EngineError("a text holds half a surrogate pair; give valid Unicode") from None
        if self._clean:
            text = self._clean(text)
        if self._lower:
            text = text.lower()
        if self._words_only:
            text = " ".join(text.translate(PUNCTUATION).split())
        return text


def _cleaner(given: Any) -> Callable[[str], str]:
    clean = given.get("clean") if isinstance(given, dict) else None
    pad = given.get("pad_token_id", 0) if isinstance(given, dict) else None
    if not isinstance(clean, str) or clean not in CLEANERS or type(pad) is not int or not 0 <= pad < 2**31:
        known = ", ".join(CLEANERS)
        raise FormatError(f"tokenizer_config.json: open_clip must have clean, one of {known}; get the model again")
    return CLEANERS[clean]


def _content(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
