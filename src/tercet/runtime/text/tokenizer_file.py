"""tokenizer.json, opened so that a stranger's file can neither steer the library nor bring it down.

The library obeys what it finds: a file saved by a training script cuts every text to the length that was set there, and
one made to harm asks for a padding of 10^12. And it panics, with an exception that no `except Exception` catches, or
aborts the process where memory ends. So:

    truncation, padding, dropout   taken away, as transformers does on each call
    what makes a text longer       bounded before any text is given to it
    what it raises                 one FormatError
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import tokenizers

from tercet.artifact import ModelFolder, strict_json
from tercet.errors import FormatError, TercetError

__all__ = ["NAME", "read_tokenizer", "reported", "without_settings"]

NAME = "tokenizer.json"
MAX_STEPS = 32  # in a sequence of normalizers and the like; real ones have up to eight
MAX_GROWTH = 256  # bytes that one byte of text can become; SentencePiece's blanks become three
MAX_ADDED = 64  # tokens around a text
# Looked for in the file itself: the library panics on a bad one when it opens the file.
CHARSMAP = re.compile(rb'"precompiled_charsmap"\s*:\s*"([^"]*)"')


def read_tokenizer(folder: ModelFolder) -> tokenizers.Tokenizer:
    """tokenizer.json of a model folder, without truncation, padding and dropout. Raises FormatError."""
    where = str(folder / NAME)
    raw = folder.read(NAME)
    strict_json.parse(raw, where, len(raw))  # the library takes the last of two equal keys
    charsmaps = [_longest(found.group(1), where) for found in CHARSMAP.finditer(raw)]
    with reported(f"{where}: no tokenizer in the fast format; save it in that"):
        made = tokenizers.Tokenizer.from_buffer(raw)
        parts = {kind: _steps(getattr(made, kind)) for kind in ("normalizer", "pre_tokenizer", "decoder")}
        around = _steps(made.post_processor)
    for kind, steps in (*parts.items(), ("post_processor", around)):
        if len(steps) > MAX_STEPS:
            raise FormatError(f"{where}: {kind} has {len(steps)} steps; at most {MAX_STEPS} are read")
    _check_growth([*map(_growth, parts["normalizer"]), *charsmaps], f"{where}: normalizer")
    _check_growth([*map(_growth, parts["decoder"])], f"{where}: decoder")
    _check_around(around, f"{where}: post_processor")
    without_settings(made)
    return made


def without_settings(tokenizer: tokenizers.Tokenizer) -> None:
    """Takes away what was set when the file was saved and would change ids behind the caller's back."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None) is not None:
        tokenizer.model.dropout = None


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Whatever the library raises becomes a FormatError that begins with `what`."""
    try:
        yield
    except (TercetError, OverflowError, TypeError, MemoryError):
        raise
    except BaseException as error:
        # Errors are bare Exceptions; a panic in Rust is not even one.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{what}: {reason[:300]}") from None


def _steps(part: Any) -> list[dict[str, Any]]:
    """The steps of a part, in order; sequences in sequences are laid open."""
    if part is None:
        return []
    waiting, steps = [json.loads(part.__getstate__())], []
    while waiting:
        step = waiting.pop(0)
        inner = next(
            (step[key] for key in ("normalizers", "pretokenizers", "processors", "decoders") if key in step), None
        )
        if inner is None:
            steps.append(step)
        else:
            waiting[:0] = inner
    return steps


def _check_growth(factors: list[float], where: str) -> None:
    growth = math.prod(max(factor, 1.0) for factor in factors)
    if growth > MAX_GROWTH:
        raise FormatError(f"{where} makes a text {growth:.3g} times as long; at most {MAX_GROWTH} are read")


def _growth(step: dict[str, Any]) -> float:
    """How much longer a step can make a text, in bytes; SentencePiece's tables apart."""
    if step["type"] == "Replace":
        content = len(str(step["content"]).encode())
        plain = step["pattern"].get("String")
        return content / max(len(plain.encode()), 1) if plain else content + 1.0  # an expression can match nothing
    if step["type"] == "Prepend":
        return 1.0 + len(str(step["prepend"]).encode())
    return 1.0


def _longest(charsmap: bytes, where: str) -> float:
    """Bytes of the longest text that SentencePiece's table has for a character: u32 n | n bytes of trie | texts, each
    ended by a zero. (A character has a byte at least.)"""
    try:
        table = base64.b64decode(charsmap, validate=True)
    except (binascii.Error, ValueError):
        table = b""
    trie = int.from_bytes(table[:4], "little")
    if len(table) < 4 or trie % 4 or not 0 < trie <= len(table) - 4:
        raise FormatError(f"{where}: precompiled_charsmap is no table of SentencePiece's; get the file again")
    return max(map(len, table[4 + trie :].split(b"\0")))


def _check_around(steps: list[dict[str, Any]], where: str) -> None:
    added = 0
    for step in steps:
        if step["type"] == "TemplateProcessing":
            pieces = step["single"]
            if [piece["Sequence"]["id"] for piece in pieces if "Sequence" in piece] != ["A"]:
                raise FormatError(f"{where}: its template must have the text once; get the file again")
            names = [piece["SpecialToken"]["id"] for piece in pieces if "SpecialToken" in piece]
            added += sum(len(step["special_tokens"][name]["ids"]) for name in names)
    if added > MAX_ADDED:
        raise FormatError(f"{where} adds {added} tokens to each text; at most {MAX_ADDED} are read")
