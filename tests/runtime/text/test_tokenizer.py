"""Ids as transformers gives them, control tokens nobody can smuggle in, text that comes out whole."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tercet.errors import EngineError, FormatError
from tercet.runtime import Tokenizer

SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>", "<|user|>"]
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "Ein Gruß aus Köln, 你好 🙂! The quick brown fox; 12345 is < 54321 and a|b > c. user assistant\n\n  two"


def _make() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    return made


BASE = _make()


def _settings(template: Any = CHATML) -> dict[str, Any]:
    return {"chat_template": template, "bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(BASE, _settings(), [1])


@pytest.fixture(scope="module")
def theirs() -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=BASE, bos_token="<s>", eos_token="<|im_end|>")
    made.chat_template = CHATML
    return made


def _folder(path: Path, **files: str) -> Path:
    defaults = {
        "tokenizer.json": BASE.to_str(),
        "tokenizer_config.json": json.dumps(_settings()),
        "config.json": json.dumps({"generation": {"eos_token_id": [1, 3]}}),
    }
    for name, text in {**defaults, **{key.replace("__", "."): value for key, value in files.items()}}.items():
        (path / name).write_text(text)
    return path


def test_open_reads_the_folder(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(_folder(tmp_path))
    assert tokenizer.eos_ids == [1, 2, 3]
    assert tokenizer.chat_template == CHATML
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\x00"])
def test_damaged_folders(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(FormatError, match=name):
        Tokenizer.open(_folder(tmp_path, **{name.replace(".", "__"): text}))
    (tmp_path / name).unlink()
    with pytest.raises(FormatError, match=name):
        Tokenizer.open(tmp_path)


def test_a_template_may_be_a_named_list() -> None:
    named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]
    assert Tokenizer(BASE, _settings(named), []).chat_template == "y"
    with pytest.raises(FormatError, match="no chat template"):
        Tokenizer(BASE, _settings(None), []).apply_chat([])


def test_special_tokens_in_a_text_stay_text(tokenizer: Tokenizer) -> None:
    text = "a<|im_end|>b<s>"
    ids = tokenizer.encode(text)
    assert not {0, 1, 2, 3} & set(ids)
    assert tokenizer.decode(ids) == text


def test_the_post_processor_adds_what_it_adds() -> None:
    made = tokenizers.Tokenizer.from_str(BASE.to_str())
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = Tokenizer(made, _settings(), [])
    assert tokenizer.encode("hi<s>")[0] == 0
    assert 0 not in tokenizer.encode("hi<s>")[1:]
    assert tokenizer.apply_chat([{"role": "user", "content": "hi"}]).count(0) == 1  # the template's own


@pytest.mark.parametrize(
    ("around", "prefix"), [("$A", []), ("<s> $A", [0]), ("$A <|im_end|>", []), ("<s> <s> $A <|im_end|>", [0, 0])]
)
def test_the_prefix_is_what_stands_in_front(around: str, prefix: list[int]) -> None:
    made = tokenizers.Tokenizer.from_str(BASE.to_str())
    made.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 0), ("<|im_end|>", 2)])
    tokenizer = Tokenizer(made, _settings(), [])
    assert tokenizer.prefix() == prefix
    assert tokenizer.encode(TEXT)[: len(prefix)] == prefix
    inner = tokenizer.encode(TEXT, around=False)
    assert tokenizer.decode(inner) == TEXT
    assert inner == tokenizer.encode(TEXT)[len(prefix) :][: len(inner)]


PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("<>|s/_ \n", max_size=20)


@given(PLAIN, st.booleans())
def test_chats_as_transformers(tokenizer: Tokenizer, theirs: PreTrainedTokenizerFast, text: str, prompt: bool) -> None:
    assume(not any(token in text for token in SPECIAL))
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": TEXT}]
    # `render` itself is compared in test_chat; here without a process for each example
    expected = theirs.apply_chat_template(messages, add_generation_prompt=prompt, return_dict=False)
    assert _without_process(tokenizer, messages, prompt) == expected


def _without_process(tokenizer: Tokenizer, messages: list[dict[str, str]], prompt: bool = True) -> list[int]:
    import jinja2

    def plain(template: str, variables: dict[str, Any]) -> str:
        return jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(**variables)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tercet.runtime.text.tokenizer.render", plain)
        return tokenizer.apply_chat(messages, add_generation_prompt=prompt)


def test_a_chat_through_the_real_renderer(tokenizer: Tokenizer, theirs: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": " x < y > z \n"}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(tokenizer.apply_chat(messages), skip_special=False) == theirs.decode(expected)


@pytest.mark.parametrize("text", ["> quoted", ">>> f(x)", "a < b <", "<", "<|", "|> pipes", "s> x", "x <\n"])
def test_code_and_quotes_as_transformers(tokenizer: Tokenizer, theirs: PreTrainedTokenizerFast, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert _without_process(tokenizer, messages) == expected


@pytest.mark.parametrize(
    ("normalizer", "text"),
    [(normalizers.NFKC(), "hi <|im_end\uff5c>"), (normalizers.Lowercase(), "hi <|IM_END|> <S>")],
)
def test_what_a_normalizer_makes_of_a_message_stays_text(normalizer: Any, text: str) -> None:
    made = tokenizers.Tokenizer.from_str(BASE.to_str())
    made.normalizer = normalizer
    made.add_special_tokens([tokenizers.AddedToken(token, normalized=True, special=True) for token in SPECIAL])
    tokenizer = Tokenizer(made, _settings(), [])
    ids = _without_process(tokenizer, [{"role": "user", "content": text}])
    assert [i for i in ids if i < 4] == [0, 1, 2, 1]
    assert tokenizer.decode(ids, skip_special=False).count("im_end") == 2


def test_a_character_without_a_token_is_no_special_token() -> None:
    made = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "hi": 1}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<unk>", "<e>"])
    tokenizer = Tokenizer(made, {"chat_template": "{{ messages[0].content }} <e>"}, [])
    assert _without_process(tokenizer, [{"role": "user", "content": "hi you <unk> <e> hi"}]) == [1, 0, 0, 0, 1, 2]


NASTY = st.lists(
    st.sampled_from([*SPECIAL, "<|im_", "end|>", "<", "|>", ">", "<|", "<|im_end|", "|im_end|>", "x", " ", "\n"]),
    max_size=6,
).map("".join)


@given(NASTY, NASTY)
def test_no_message_makes_a_control_token(tokenizer: Tokenizer, first: str, second: str) -> None:
    messages = [{"role": "user", "content": first}, {"role": "user", "content": second}]
    ids = _without_process(tokenizer, messages)
    assert [i for i in ids if i < 4] == [0, 1, 2, 1, 2, 1]
    turns = "".join(f"<|im_start|>user\n{text.strip()}<|im_end|>\n" for text in (first, second))
    text = f"<s>{turns}<|im_start|>assistant\n"
    assert tokenizer.decode(ids, skip_special=False) == text


@pytest.mark.parametrize("ids", [[-1], [2**40]])
def test_ids_out_of_range(tokenizer: Tokenizer, ids: list[int]) -> None:
    with pytest.raises(EngineError):
        tokenizer.decode(ids)


def test_half_a_surrogate_pair(tokenizer: Tokenizer) -> None:
    with pytest.raises(EngineError, match="surrogate"):
        tokenizer.encode("a\ud800")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_streamed_text_is_the_text(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream()
    pieces = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)  # never half a character


def test_streamed_text_keeps_blanks_after_special_tokens() -> None:
    """SentencePiece's decoder takes the first blank of a text away, but of no other piece."""
    made = tokenizers.Tokenizer(models.BPE({"<s>": 0, "\u2581": 1, "\u2581a": 2, "b": 3}, []))
    made.add_special_tokens(["<s>"])
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer = Tokenizer(made, {}, [])
    for ids in itertools.product(range(4), repeat=5):
        stream = tokenizer.stream()
        assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)


@given(
    st.text("ab\n🙂", max_size=30),
    st.lists(st.text("ab\n🙂", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_strings_over_token_borders(tokenizer: Tokenizer, text: str, stop: list[str]) -> None:
    stream = tokenizer.stream(stop)
    shown = ""
    ids = tokenizer.encode(text)
    for i in ids:
        shown += stream.push(i)
    shown += stream.finish()
    found = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert shown == (text[: min(found)[1]] if found else text)  # the one complete first
    assert stream.stopped == bool(found)
    if stream.stopped:
        assert stream.push(ids[0]) == stream.finish() == ""


def test_bytes_that_never_become_text_are_shown_in_the_end(tokenizer: Tokenizer) -> None:
    byte = BASE.token_to_id("ð")  # 0xF0, the first of four
    stream = tokenizer.stream()
    assert "\ufffd" in "".join(stream.push(byte) for _ in range(40))
    stream = tokenizer.stream()
    assert stream.push(byte) == ""
    assert stream.finish() == "\ufffd"
    with pytest.raises(EngineError, match="empty stop"):
        tokenizer.stream([""])
