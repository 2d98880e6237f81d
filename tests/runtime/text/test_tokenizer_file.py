"""tokenizer.json as strangers write it: it cannot steer the library, and what it breaks is one FormatError."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

import tiny
from tercet.artifact import ModelFolder
from tercet.errors import FormatError
from tercet.runtime import Tokenizer
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.text.tokenizer_file import read_tokenizer

PAD = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
CUT = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
PLAIN: dict[str, Any] = json.loads(tiny.tokenizer().to_str())


def opened(folder: Path, **changes: Any) -> Tokenizer:
    (folder / "tokenizer.json").write_text(json.dumps({**PLAIN, **changes}))
    return Tokenizer(read_tokenizer(ModelFolder(folder)), {}, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"truncation": CUT},
        {"padding": {"strategy": {"Fixed": 48}, **PAD}},
        {"padding": {"strategy": {"Fixed": 10**12}, **PAD}},
        {"model": {**PLAIN["model"], "dropout": 0.9}},
    ],
)
def test_what_a_training_script_left_is_dropped(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert opened(tmp_path, **changes).encode(tiny.TEXT) == opened(tmp_path).encode(tiny.TEXT)


def test_a_library_object_s_own_settings_are_dropped_too() -> None:
    made = tiny.tokenizer()
    made.enable_truncation(2)
    made.enable_padding(length=48)
    made.model.dropout = 0.9
    assert Tokenizer(made, {}, []).encode(tiny.TEXT) == Tokenizer(tiny.tokenizer(), {}, []).encode(tiny.TEXT)


def test_captions_drop_dropout() -> None:
    made = tiny.tokenizer()
    made.model.dropout = 0.9
    pad = {"pad_token": tiny.SPECIAL[0]}
    texts = ["The quick brown fox"] * 4
    assert (
        CaptionTokenizer(made, pad, 32)(texts).tolist() == CaptionTokenizer(tiny.tokenizer(), pad, 32)(texts).tolist()
    )


def steps(content: str, count: int, pattern: str = "H") -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": pattern}, "content": content}
    return {"type": "Sequence", "normalizers": [step] * count}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"normalizer": steps("H" * 1000, 3)}, "times as long"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "H" * 1000}}, "times as long"),
        ({"normalizer": {"type": "Prepend", "prepend": "H" * 1000}}, "times as long"),
        ({"normalizer": steps("H", 33)}, "33 steps"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}}, "no table of SentencePiece"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA//8="}}, "no table of SentencePiece"),
        ({"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "H" * 1000}}, "times as long"),
        ({"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}],
                             "pair": [], "special_tokens": {}}}, "the text once"),
        ({"model": {"type": "nothing"}}, "fast format"),
        ({"added_tokens": [{"id": 0}]}, "fast format"),
    ],
)  # fmt: skip
def test_what_could_bring_the_process_down_is_refused(tmp_path: Path, changes: dict[str, Any], match: str) -> None:
    with pytest.raises(FormatError, match=match) as error:
        opened(tmp_path, **changes)
    assert "tokenizer.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("twice", ['"version": "1.0", ', '"added_tokens": [], '])
def test_equal_keys_are_refused(tmp_path: Path, twice: str) -> None:
    (tmp_path / "tokenizer.json").write_text("{" + twice + json.dumps(PLAIN)[1:])
    with pytest.raises(FormatError, match="duplicate key"):
        read_tokenizer(ModelFolder(tmp_path))


def test_tokens_around_a_text_are_bounded(tmp_path: Path) -> None:
    made = tiny.tokenizer()
    name = tiny.SPECIAL[0]
    made.post_processor = processors.TemplateProcessing(single=[*[name] * 70, "$A"], special_tokens=[(name, 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(FormatError, match="adds 70 tokens"):
        read_tokenizer(ModelFolder(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "BPE", "unk_token": "zz", "vocab": {"a": 0}, "merges": []}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False}},
    ],
)
def test_panics_and_bare_exceptions_at_work_are_format_errors(tmp_path: Path, changes: dict[str, Any]) -> None:
    tokenizer = opened(tmp_path, **changes)
    with pytest.raises(FormatError, match="cannot read this text"):
        tokenizer.encode("x" * 28)
