"""Captions of the web, cleaned as open_clip's tokenizer cleans them (its own results, written down)."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import tiny
from tercet.errors import EngineError, FormatError, ModelError
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.repair import CLEANERS
from tercet.sources.open_clip.config import captions

LOWER = {
    "a photo of a cat": "a photo of a cat",
    "Tom &amp; Jerry": "tom & jerry",
    "fish &amp;amp; chips": "fish & chips",
    "5 &lt; 6": "5 < 6",
    "caf\u00c3\u00a9 in Paris": "caf\u00e9 in paris",
    "it\u2019s a dog": "it's a dog",
    "\u201cquoted\u201d text": '"quoted" text',
    "\uff26\uff35\uff2c\uff2c width": "full width",
    "a  b\tc\nd": "a b c d",
    "\u00a0nbsp\u00a0": "nbsp",
    "dog\u2026": "dog\u2026",
    "\ufb01sh": "fish",
    "\u0130stanbul": "i\u0307stanbul",
    "line one<br/>line two": "line one<br/>line two",
    "&#39;s hat": "'s hat",
    "100% cotton & silk": "100% cotton & silk",
    "\x00nul": "nul",
    "e\u0301": "\u00e9",
    "\x1b[31mred": "red",
    "": "",
}


@pytest.mark.parametrize("text", LOWER)
def test_lower(text: str) -> None:
    pytest.importorskip("ftfy")
    assert CLEANERS["lower"](text) == LOWER[text]


def test_the_other_ways() -> None:
    assert CLEANERS["whitespace"]("  A  Red,  shoe ") == "A Red, shoe"
    assert CLEANERS["canonicalize"](" A_Red,  SHOE!") == "a red shoe"


def test_plain_texts_need_no_ftfy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert CLEANERS["lower"]("A red <shoe>") == "a red <shoe>"
    with pytest.raises(EngineError, match=r"tercet\[images\]"):
        CLEANERS["lower"]("caf\u00e9")


def test_a_packed_folder_cleans_and_fills_as_it_says() -> None:
    settings = {"pad_token": tiny.SPECIAL[2], "tokenizer_class": "SiglipTokenizer"}
    theirs = {**settings, "open_clip": {"clean": "lower", "pad_token_id": 0}}
    plain = CaptionTokenizer(tiny.tokenizer(), settings | {"tokenizer_class": "CLIPTokenizer"}, 16)
    cleaned = CaptionTokenizer(tiny.tokenizer(), theirs, 16)
    row, other = cleaned(["  The   Fox, "])[0].tolist(), plain(["the fox,"])[0].tolist()
    assert [token or 2 for token in row] == other
    assert row[-1] == 0
    for wrong in ({}, {"clean": "all"}, {"clean": []}, {"clean": "lower", "pad_token_id": "a"}, "lower"):
        with pytest.raises(FormatError, match="open_clip"):
            CaptionTokenizer(tiny.tokenizer(), {**settings, "open_clip": wrong}, 16)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ({}, {"clean": "lower", "pad_token_id": 0}),
        ({"tokenizer_kwargs": {"clean": "canonicalize"}}, {"clean": "canonicalize", "pad_token_id": 0}),
        ({"hf_tokenizer_name": "a/b"}, {"clean": "whitespace"}),
    ],
)
def test_what_the_config_says(text: dict[str, Any], expected: dict[str, Any]) -> None:
    assert captions({"model_cfg": {"text_cfg": text}}) == expected


@pytest.mark.parametrize("arguments", [{"clean": "all"}, {"strip_sep_token": True}, {"reduction_mask": "random"}])
def test_what_is_not_built_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="tokenizer_kwargs"):
        captions({"text_cfg": {"tokenizer_kwargs": arguments}})
