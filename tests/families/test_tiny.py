"""The helpers themselves: what `tiny` promises to other tests, and the real SmolLM2."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import tiny
from tercet import families
from tercet.program import interpreter


def test_the_same_seed_gives_the_same_model() -> None:
    first, second, other = (tiny.model("qwen3", seed=seed)[2] for seed in (0, 0, 1))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["model.norm.weight"], other["model.norm.weight"])


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_saved_folder_is_the_model(family: str, tmp_path: Path) -> None:
    made, _, tensors = tiny.model(family)
    folder = tiny.save_folder(tmp_path / "model", family)
    loaded = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    assert np.array_equal(tiny.reference(loaded, tiny.ids()), tiny.reference(made, tiny.ids()))
    program = families.model(json.loads((folder / "config.json").read_text())).text
    assert set(program.weights) == set(tensors)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("zero and plus one, é").input_ids) == "zero and plus one, é"
    assert len(tokenizer) <= program.vocab_size
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    assert tokenizer.decode(prompt["input_ids"]) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.eos_token_id == loaded.config.eos_token_id


@pytest.mark.slow
def test_smollm2_is_what_transformers_computes() -> None:
    sources = pytest.importorskip("tercet.sources")
    source = sources.resolve("smollm2")
    program, tensors = source.model.text, source.tensors()
    assert set(program.weights) == set(tensors)
    ids = tiny.ids(32, program.vocab_size)
    found = interpreter.logits(program, {name: tensors[name] for name in program.weights}, ids)
    wanted = tiny.reference(source.pretrained(), ids)
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-4
