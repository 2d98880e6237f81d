"""Rows for the text tower, against transformers' own tokenizers of CLIP and SigLIP 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTokenizer
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

from tercet.errors import EngineError, FormatError
from tercet.runtime.pictures.captions import CaptionTokenizer

WORDS = ["a", "photo", "of", "red", "shoe", "two", "dogs"]


def clip() -> CLIPTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet), "re", "red</w>", "ph", "pho", "of</w>"]
    merges = [("r", "e"), ("re", "d</w>"), ("p", "h"), ("ph", "o"), ("o", "f</w>")]
    vocab = {piece: index for index, piece in enumerate([*pieces, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=merges)


def siglip2() -> Siglip2Tokenizer:
    pieces = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<mask>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefghij",
    ]
    made = Siglip2Tokenizer(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[("a", "b")][:0])
    made.padding_side = "right"
    made._tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    return made


def opened(tokenizer: Any, folder: Path, context: int) -> CaptionTokenizer:
    tokenizer.save_pretrained(folder)
    return CaptionTokenizer.open(folder, context)


@pytest.fixture(scope="module", params=["clip", "siglip2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, CaptionTokenizer]:
    tokenizer = clip() if request.param == "clip" else siglip2()
    return tokenizer, opened(tokenizer, tmp_path_factory.mktemp(request.param), 16)


TEXT = st.lists(st.sampled_from([*WORDS, "RED", "Ünï", "日本", "'s", "3", "!?", "  ", "\n"]), max_size=12).map(" ".join)


@given(texts=st.lists(TEXT | st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_rows_are_those_of_transformers(pair: tuple[Any, CaptionTokenizer], texts: list[str]) -> None:
    tokenizer, labels = pair
    texts = [text for text in texts if "<" not in text] or [""]
    made = labels(texts)
    assert made.dtype == np.int64
    wanted = tokenizer(texts, padding="max_length", truncation=True, max_length=16)["input_ids"]
    np.testing.assert_array_equal(made, wanted)


def test_a_cut_row_keeps_its_end(pair: tuple[Any, CaptionTokenizer]) -> None:
    tokenizer, labels = pair
    row = labels(["red shoe " * 50])[0]
    assert row[-1] == tokenizer.eos_token_id
    assert (row[1:-1] != tokenizer.eos_token_id).all()


def test_a_control_token_in_a_caption_is_text(tmp_path: Path) -> None:
    tokenizer = clip()
    labels = opened(tokenizer, tmp_path, 77)
    row = labels(["red <|endoftext|> of"])[0].tolist()
    assert row.index(tokenizer.eos_token_id) > 10


def test_siglip_s_texts_are_made_plain_first() -> None:
    made = Tokenizer(models.WordLevel({"</s>": 0, "[UNK]": 1, "a": 2, "red": 3, "shoe": 4}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": {"content": "</s>"}}
    labels = CaptionTokenizer(made, settings, 6)
    assert labels([' A  "RED", shoe! ', ""]).tolist() == [[2, 3, 4, 0, 0, 0], [0] * 6]
    assert CaptionTokenizer(made, {**settings, "do_lower_case": False}, 4)(["A shoe."]).tolist() == [[1, 4, 0, 0]]
    assert CaptionTokenizer(made, {**settings, "tokenizer_class": "SiglipTokenizerFast"}, 4)(["A shoe."]).tolist() == [
        [2, 4, 0, 0]
    ]


def test_gemma_s_tokenizer_in_siglip_2_gets_lower_case() -> None:
    made = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "red!": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    labels = CaptionTokenizer(made, {"tokenizer_class": "GemmaTokenizerFast", "pad_token": "<pad>"}, 3)
    assert labels(["RED! no"]).tolist() == [[2, 1, 0]]


def test_no_text_at_all_is_no_row(pair: tuple[Any, CaptionTokenizer]) -> None:
    assert pair[1]([]).shape == (0, 16)


def test_what_cannot_be_read_is_refused(pair: tuple[Any, CaptionTokenizer], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="surrogate"):
        pair[1](["\ud800"])
    with pytest.raises(EngineError, match="cut it"):
        pair[1](["a" * (1 << 21)])
    with pytest.raises(FormatError, match=r"tokenizer\.json"):
        CaptionTokenizer.open(tmp_path, 77)
    clip().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<nothing>"}))
    with pytest.raises(FormatError, match="pad_token"):
        CaptionTokenizer.open(tmp_path, 77)
