"""Tokenizers rebuilt from GGUF metadata give the same ids as the originals, on strings nobody would write."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import gguf_files
import tiny
from odd_strings import PIECES, strings
from tercet.errors import FormatError, ModelError
from tercet.sources.gguf.tokenizer import build

TEXT = [" ".join(random.Random(seed).choices(PIECES + tiny.TEXT.split(), k=40)) for seed in range(60)]


def byte_level(*first: Any, regex: bool = True, ignore_merges: bool = False) -> Tokenizer:
    """A byte-level BPE tokenizer of 500 tokens trained in memory, cutting words as the families' own files do."""
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=tiny.SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXT, trainer)
    return made


def split(digits: str) -> Any:
    """The cut of Llama 3 and Qwen 2, as in their own tokenizer.json; they differ in how many digits are one word."""
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


def qwen() -> Tokenizer:
    made = byte_level(split(r"\p{N}"), regex=False)
    made.normalizer = normalizers.NFC()
    return made


ORIGINALS: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": byte_level,
    "smollm": lambda: byte_level(pre_tokenizers.Digits(individual_digits=True)),
    "llama-bpe": lambda: byte_level(split(r"\p{N}{1,3}"), regex=False, ignore_merges=True),
    "qwen2": qwen,
}


def metadata(original: Tokenizer, pre: str) -> dict[str, Any]:
    model = json.loads(original.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([3 if t in tiny.SPECIAL else 1 for t in tokens]),
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
    }


@pytest.mark.parametrize("pre", ORIGINALS)
def test_byte_level_ids_are_the_originals(pre: str) -> None:
    original = ORIGINALS[pre]()
    rebuilt = build(metadata(original, pre), "test").tokenizer
    texts = strings(10_000)
    for text, a, b in zip(texts, original.encode_batch(texts), rebuilt.encode_batch(texts), strict=True):
        assert a.ids == b.ids, text
    sample = "héllo  <|im_start|> 42\n"
    assert rebuilt.decode(rebuilt.encode(sample).ids, skip_special_tokens=False) == sample


def test_each_pre_tokenizer_cuts_differently() -> None:
    original = byte_level()
    texts = strings(500)
    ids = {pre: [e.ids for e in build(metadata(original, pre), "t").tokenizer.encode_batch(texts)] for pre in ORIGINALS}
    assert len({str(value) for value in ids.values()}) == len(ORIGINALS)


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2"])
def test_ids_are_those_of_transformers(tmp_path: Path, pre: str) -> None:
    """transformers' own reading of the same GGUF (it does not know that smollm splits digits; nor NFC for qwen2)."""
    from transformers import AutoTokenizer

    _, settings, tensors = tiny.model("llama", vocab_size=500)

    def add(writer: Any) -> None:
        gguf_files.add_tokenizer(writer, byte_level(), 500, pre, tiny.SPECIAL)
        writer.add_add_bos_token(False)
        writer.add_eos_token_id(2)

    path = gguf_files.write(tmp_path / "m.gguf", "llama", settings, tensors, add)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    from tercet.sources.gguf.reader import GGUFFile

    with GGUFFile(path) as gguf:
        ours = build(gguf.metadata, "test").tokenizer
    for text in strings(2_000, seed=1):
        if pre != "qwen2" or (not any(mark in text for mark in ("\u0301", "\u0300")) and text.isascii()):
            assert ours.encode(text).ids == theirs(text).input_ids, text


SPM_WORDS = [
    "\u2581the",
    "\u2581weights",
    "ternary",
    "\u2581is",
    "\u2581\u2581",
    "\u2581\u2581\u2581\u2581",
    "12",
    "don't",
    "дом",
]


def spm() -> dict[str, Any]:
    """A SentencePiece vocabulary: unknown, bos, eos, 256 bytes, characters, and every prefix of SPM_WORDS."""
    fixed = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    merged = list(dict.fromkeys(word[:end] for word in SPM_WORDS for end in range(2, len(word) + 1)))
    merged += ["er", "ei", "gh", "ht", "hts", "eig", "\u2581t", "he", "nar", "ary"]
    merged = list(dict.fromkeys(merged))
    random.Random(0).shuffle(merged)
    characters = sorted({c for word in merged for c in word} | set("abcxyz.é"))
    tokens = fixed + merged + characters
    types = [2, 3, 3] + [6] * 256 + [1] * (len(merged) + len(characters))
    scores = [0.0] * len(fixed) + [-float(rank) for rank in range(len(merged) + len(characters))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types),
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def sentencepiece(text: str, data: dict[str, Any], prefix: bool) -> list[int]:
    """The algorithm as published: join the neighbours whose join scores best, leftmost first, until none is left."""
    ids = {token: index for index, token in enumerate(data["tokenizer.ggml.tokens"])}
    types, scores = data["tokenizer.ggml.token_type"], data["tokenizer.ggml.scores"]
    symbols = list(("\u2581" if prefix and text else "") + text.replace(" ", "\u2581"))
    while True:
        joins = [(-scores[ids[a + b]], i) for i, (a, b) in enumerate(pairwise(symbols))
                 if a + b in ids and types[ids[a + b]] == 1]  # fmt: skip
        if not joins:
            break
        _, at = min(joins)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    made: list[int] = []
    for symbol in symbols:
        made += [ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]
    return made


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_are_those_of_its_algorithm(prefix: bool) -> None:
    data = spm() | {"tokenizer.ggml.add_space_prefix": prefix}
    tokenizer = build(data, "test").tokenizer
    texts = [text for text in strings(11_000) if "<s>" not in text and "</s>" not in text and len(text) < 60][:10_000]
    texts[:3] = ["the weights  is the", "ternary    12", "ternarydom дом"]
    for text, encoded in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert encoded.ids == [1, *sentencepiece(text, data, prefix)], text
        if "\u2581" not in text:
            assert tokenizer.decode(encoded.ids) == text


def test_special_tokens_stay_whole_and_bos_can_be_off() -> None:
    tokenizer = build(spm() | {"tokenizer.ggml.add_bos_token": False}, "test").tokenizer
    assert tokenizer.encode("a</s>").ids[-1] == 2
    assert tokenizer.encode("a").ids[0] != 1


def test_gemma_spells_runs_of_spaces_in_its_own_way() -> None:
    tokens = ["<unk>", "<bos>", "  ", "   ", "\u2581", "a", "\u2581a", "<end_of_turn>"]
    data = {
        "general.architecture": "gemma3",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array([2, 3, 4, 4, 1, 1, 1, 3]),
        "tokenizer.ggml.scores": np.zeros(8, np.float32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.chat_template": "{{ messages }}<end_of_turn>",
    }
    built = build(data, "test")
    assert built.tokenizer.encode("   a").ids == [1, 3, 5]
    assert built.tokenizer.encode("a a").ids == [1, 5, 6]
    assert built.stop_ids == [7]


SIZE = tiny.tokenizer().get_vocab_size()


def changed(**changes: Any) -> dict[str, Any]:
    data = metadata(tiny.tokenizer(), "gpt-2") | {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    return {key: value for key, value in data.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"pre": "default"}, ModelError, "'default' is not known; supported: gpt-2, phi-2, smollm"),
        ({"pre": None}, ModelError, "'None' is not known"),
        ({"pre": np.zeros(3)}, ModelError, "is not known"),
        ({"model": "t5"}, ModelError, "'t5' is not supported"),
        ({"tokens": ["a", "a"]}, FormatError, "a token twice"),
        ({"tokens": ["a", ""]}, FormatError, "an empty token"),
        ({"tokens": ["a", "b" * 2000]}, FormatError, "longer than"),
        ({"token_type": np.zeros(3)}, FormatError, "one number for each"),
        ({"merges": ["no such"]}, FormatError, "does not join two tokens"),
        ({"merges": None}, FormatError, "missing or no list"),
        ({"bos_token_id": 300}, FormatError, "outside the vocabulary"),
        ({"bos_token_id": True}, FormatError, "outside the vocabulary"),
        ({"add_bos_token": 1}, FormatError, "is no bool"),
        ({"model": "llama", "merges": None}, FormatError, "scores is missing"),
        ({"model": "llama", "merges": None, "scores": np.full(SIZE, np.nan)}, FormatError, "not finite"),
        ({"model": "llama", "merges": None, "scores": np.zeros(SIZE, np.float32)}, FormatError, "all the same"),
        (
            {
                "model": "llama",
                "merges": None,
                "tokens": [f"{i:06}" + "x" * 1000 for i in range(300)],
                "token_type": np.ones(300),
                "scores": np.arange(300.0),
                "bos_token_id": None,
            },
            FormatError,
            "too many long tokens",
        ),
    ],
)
def test_metadata_that_makes_no_tokenizer(changes: dict[str, Any], error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        build(changed(**changes), "test")
