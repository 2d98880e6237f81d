"""tokenizer.json and tokenizer_config.json out of GGUF metadata, built with the `tokenizers` library.

Two kinds exist in the supported families:

gpt2: byte-level BPE with a list of merges. How text is cut into words first is not in the file, only its name
    (`tokenizer.ggml.pre`); BYTE_LEVEL holds the names whose rule is certain, and any other is refused: a wrong cut
    gives a tokenizer that works and is quietly worse.
llama: SentencePiece BPE with byte fallback. Merges are not stored; they are all pairs of tokens that join to a token,
    best score first. (Gemma's tokens are in merge order, and its runs of spaces are spelled with real spaces.)

Special tokens are those marked as control (or unknown) and the ones named as bos/eos/pad. User-defined tokens are
matched whole but are ordinary text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tercet.errors import FormatError, ModelError

__all__ = ["BYTE_LEVEL", "BuiltTokenizer", "build"]

CONTROL, UNKNOWN, USER_DEFINED, UNUSED, BYTE = 3, 2, 4, 5, 6
MAX_TOKEN = 1024  # characters; real ones stay below 300
MAX_SQUARES = 1 << 28  # characters squared over all tokens, which is the work of finding merges; real ones have 2^24
SPACE = "\u2581"
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end_of_turn|>", "<end_of_turn>", "<|end|>", "<|endoftext|>")

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class ByteLevel:
    """How a named pre-tokenizer works: a splitting regex ("" for GPT-2's own), digits alone first, NFC, defaults."""

    regex: str = ""
    digits: bool = False
    nfc: bool = False
    ignore_merges: bool = False
    add_bos: bool = False


BYTE_LEVEL: dict[str, ByteLevel] = {
    "gpt-2": ByteLevel(),
    "phi-2": ByteLevel(),
    "smollm": ByteLevel(digits=True),
    "llama-bpe": ByteLevel(_LLAMA3, ignore_merges=True, add_bos=True),
    "llama3": ByteLevel(_LLAMA3, ignore_merges=True, add_bos=True),
    "llama-v3": ByteLevel(_LLAMA3, ignore_merges=True, add_bos=True),
    "qwen2": ByteLevel(_QWEN2, nfc=True),
}


@dataclass(frozen=True)
class BuiltTokenizer:
    """A tokenizer; what goes into tokenizer_config.json; bos/eos/pad ids for config.json; ids that end a turn."""

    tokenizer: Tokenizer
    settings: dict[str, Any]
    token_ids: dict[str, int]
    stop_ids: list[int]


class _Vocabulary:
    """The checked vocabulary keys of one file."""

    def __init__(self, metadata: dict[str, Any], where: str) -> None:
        self.metadata, self.where = metadata, where
        self.tokens = self.strings("tokens")
        count = len(self.tokens)
        if not count or len(set(self.tokens)) != count:
            raise self.fail("tokens", "is empty or holds a token twice")
        if "" in self.tokens or max(map(len, self.tokens)) > MAX_TOKEN:
            raise self.fail("tokens", f"holds an empty token or one longer than {MAX_TOKEN} characters")
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.types = self.numbers("token_type", count, np.zeros(count, np.int32))

    def fail(self, key: str, why: str) -> FormatError:
        return FormatError(f"{self.where}: metadata tokenizer.ggml.{key} {why}")

    def get(self, key: str) -> Any:
        return self.metadata.get(f"tokenizer.ggml.{key}")

    def strings(self, key: str) -> list[str]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fail(key, "is missing or no list of strings")
        return value

    def numbers(self, key: str, count: int, default: Any = None) -> Any:
        value = default if self.get(key) is None else self.get(key)
        if not isinstance(value, np.ndarray) or len(value) != count:
            raise self.fail(key, f"is missing or has not one number for each of {count} tokens")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(key, "is no bool")
        return default if value is None else value

    def token_id(self, name: str) -> int | None:
        value = self.get(f"{name}_token_id")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(self.tokens):
            raise self.fail(f"{name}_token_id", f"is {value!r}, outside the vocabulary of {len(self.tokens)} tokens")
        return value

    def of_type(self, *kinds: int) -> list[int]:
        return [int(index) for index in np.flatnonzero(np.isin(self.types, kinds))]


def build(metadata: dict[str, Any], where: str) -> BuiltTokenizer:
    """The tokenizer that `metadata` describes. Raises FormatError (damaged), ModelError (not supported)."""
    vocabulary = _Vocabulary(metadata, where)
    kind = str(vocabulary.get("model"))
    if kind == "gpt2":
        tokenizer, add_bos = _byte_level(vocabulary)
    elif kind == "llama":
        tokenizer, add_bos = _sentencepiece(vocabulary, metadata.get("general.architecture") == "gemma3"), True
    else:
        raise ModelError(f"{where}: tokenizer model {kind[:40]!r} is not supported; supported: gpt2, llama")
    special = {name: vocabulary.token_id(key) for name, key in _SPECIAL.items()}
    _add_tokens(tokenizer, vocabulary, {index for index in special.values() if index is not None})
    bos = special["bos_token"] if vocabulary.flag("add_bos_token", add_bos) else None
    eos = special["eos_token"] if vocabulary.flag("add_eos_token", False) else None
    _add_post_processor(tokenizer, vocabulary, bos, eos)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {name: vocabulary.tokens[index] for name, index in special.items() if index is not None}
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    ids = {f"{name}_id": index for name, index in special.items() if index is not None and name != "unk_token"}
    return BuiltTokenizer(tokenizer, settings, ids, _stop_ids(vocabulary, settings))


_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _byte_level(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    name = vocabulary.get("pre")
    if not isinstance(name, str) or name not in BYTE_LEVEL:
        known = ", ".join(BYTE_LEVEL)
        raise ModelError(
            f"{vocabulary.where}: tokenizer.ggml.pre {str(name)[:40]!r} is not known; supported: {known}; "
            "use the original safetensors model, which carries its tokenizer"
        )
    rule = BYTE_LEVEL[name]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary.ids, merges=_merges(vocabulary), ignore_merges=rule.ignore_merges)
    )
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    parts: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rule.regex)]
    if rule.regex:
        parts.insert(0, pre_tokenizers.Split(Regex(rule.regex), "isolated"))
    if rule.digits:
        parts.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, rule.add_bos


def _merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    made = []
    for merge in vocabulary.strings("merges"):
        left, _, right = merge.partition(" ")
        if left not in vocabulary.ids or right not in vocabulary.ids or left + right not in vocabulary.ids:
            raise vocabulary.fail("merges", f"holds {merge[:80]!r}, which does not join two tokens to a third")
        made.append((left, right))
    return made


def _sentencepiece(vocabulary: _Vocabulary, gemma: bool) -> Tokenizer:
    if gemma:
        respelled = [SPACE * len(t) if len(t) > 1 and not t.strip(" ") else t for t in vocabulary.tokens]
        if len(set(respelled)) == len(respelled):  # else the file has both spellings, and nothing is to be mended
            vocabulary.tokens = respelled
            vocabulary.ids = {token: index for index, token in enumerate(respelled)}
    unknown = vocabulary.of_type(UNKNOWN)
    merges = _merges(vocabulary) if vocabulary.get("merges") is not None else _implied_merges(vocabulary, gemma)
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocabulary.ids,
            merges=merges,
            unk_token=vocabulary.tokens[unknown[0]] if unknown else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = vocabulary.flag("add_space_prefix", not gemma)
    replace = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _implied_merges(vocabulary: _Vocabulary, by_position: bool) -> list[tuple[str, str]]:
    """All (left, right) whose join is a token, best score first, then longest left: the order transformers uses."""
    ids, tokens = vocabulary.ids, vocabulary.tokens
    skipped = set(vocabulary.of_type(CONTROL, UNKNOWN, UNUSED, BYTE))
    scores = -np.arange(len(ids), dtype=np.float64) if by_position else vocabulary.numbers("scores", len(ids))
    if not np.isfinite(scores).all():
        raise vocabulary.fail("scores", "holds values that are not finite")
    if sum(len(token) ** 2 for token in tokens) > MAX_SQUARES:
        raise vocabulary.fail("tokens", "holds too many long tokens to be a vocabulary; get the file again")
    merges = []
    for index, token in enumerate(tokens):
        if index in skipped:
            continue
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut], -1), ids.get(token[cut:], -1)
            if min(left, right) >= 0 and left not in skipped and right not in skipped:
                merges.append((float(scores[index]), cut, len(token) - cut, tokens[left], tokens[right]))
    if len(merges) > 1 and len({merge[0] for merge in merges}) == 1:
        raise vocabulary.fail("scores", "are all the same, so that no order of merges is known; get the original model")
    merges.sort(key=lambda merge: merge[:3], reverse=True)
    return [(left, right) for *_, left, right in merges]


def _add_tokens(tokenizer: Tokenizer, vocabulary: _Vocabulary, named: set[int]) -> None:
    """Added tokens, ids ascending so that the library keeps the ids of the vocabulary."""
    unknown = vocabulary.of_type(UNKNOWN) if vocabulary.get("model") == "llama" else []
    special = named.union(vocabulary.of_type(CONTROL), unknown)
    runs = {index for index in vocabulary.of_type(USER_DEFINED) if not vocabulary.tokens[index].strip(SPACE)}
    for index in sorted(special.union(vocabulary.of_type(USER_DEFINED)) - runs):
        added = AddedToken(vocabulary.tokens[index], normalized=False, special=index in special)
        (tokenizer.add_special_tokens if index in special else tokenizer.add_tokens)([added])


def _add_post_processor(tokenizer: Tokenizer, vocabulary: _Vocabulary, bos: int | None, eos: int | None) -> None:
    if bos is None and eos is None:
        return
    begin = [] if bos is None else [vocabulary.tokens[bos]]
    end = [] if eos is None else [vocabulary.tokens[eos]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*begin, "$A", *end],
        pair=[*begin, "$A", *end, *(f"{token}:1" for token in begin), "$B:1", *(f"{token}:1" for token in end)],
        special_tokens=[(vocabulary.tokens[index], index) for index in {bos, eos} if index is not None],
    )


def _stop_ids(vocabulary: _Vocabulary, settings: dict[str, Any]) -> list[int]:
    """eos, the end-of-turn tokens the file names, and those its chat template closes messages with."""
    named = [vocabulary.token_id(name) for name in ("eos", "eot", "eom")]
    template = settings.get("chat_template", "")
    control = set(vocabulary.of_type(CONTROL))
    written = [vocabulary.ids[t] for t in END_OF_TURN if t in template and vocabulary.ids.get(t) in control]
    return sorted({index for index in [*named, *written] if index is not None})
