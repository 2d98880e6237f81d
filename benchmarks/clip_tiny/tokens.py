"""CLIP's tokenizer, made for few words: byte-level BPE with </w> at the end of words, lower case.

The vocabulary is laid out as CLIP's: 256 bytes, 256 bytes that end a word, merges, <|startoftext|>, <|endoftext|> (the
last id, so that both ways to find the pooled token, the highest id and the first end, agree). No text is unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["CONTEXT", "train_tokenizer", "write_tokenizer"]

CONTEXT = 32
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def train_tokenizer(texts: Iterable[str], merges: int) -> Tokenizer:
    """A tokenizer with 514 + `merges` tokens, in the manner of transformers' CLIPTokenizer."""
    learner = _frame(models.BPE())
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1 << 20, max_token_length=24, initial_alphabet=alphabet, end_of_word_suffix="</w>", min_frequency=2
    )
    learner.train_from_iterator(sorted(texts), trainer)
    pairs = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"][:merges]]
    tokens = [*alphabet, *(byte + "</w>" for byte in alphabet)]
    tokens += [token for token in dict.fromkeys(left + right for left, right in pairs) if token not in tokens]
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    tokenizer = _frame(models.BPE(vocabulary, pairs, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.add_special_tokens([START, END])
    special = [(START, vocabulary[START]), (END, vocabulary[END])]
    tokenizer.post_processor = processors.RobertaProcessing(
        special[1], special[0], trim_offsets=False, add_prefix_space=False
    )
    return tokenizer


def _frame(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json."""
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CONTEXT,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
