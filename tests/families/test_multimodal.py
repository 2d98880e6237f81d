"""The language models of models that see pictures: taken alone, whatever stands in front of their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

import tiny
from tercet import families
from tercet.errors import FormatError
from tercet.program import interpreter
from tercet.sources import resolve
from tercet.sources.views import views

VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
SQUARE = {**VISION, "image_size": 28, "patch_size": 14}
QWEN = {"depth": 1, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14, "in_channels": 3}
QWEN25 = {"depth": 1, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64}
MROPE = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": [2, 3, 3]}
LLAMA = {"model_type": "llama"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gemma3": (tiny.FAMILIES["gemma3_text"], {**SQUARE, "model_type": "siglip_vision_model"}),
    "llava": (LLAMA, {**SQUARE, "model_type": "clip_vision_model"}),
    "mistral3": ({"model_type": "mistral", **tiny.FAMILIES["mistral"]}, {**SQUARE, "model_type": "pixtral"}),
    "idefics3": (LLAMA, SQUARE),
    "smolvlm": (LLAMA, SQUARE),
    "qwen2_vl": ({"rope_parameters": MROPE}, QWEN),
    "qwen2_5_vl": ({"rope_parameters": MROPE}, QWEN25),
    "qwen3_vl": (
        {"rope_parameters": {**MROPE, "mrope_interleaved": True}, "head_dim": 16},
        {**QWEN25, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    ),
}


def made(kind: str, **top: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    text, vision = CASES[kind]
    config = AutoConfig.for_model(kind, text_config={**tiny.SHAPE, **text}, vision_config=vision, **top)
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tiny.draw(name, parameter, "gemma" if kind == "gemma3" else kind, generator))
    return model.eval(), json.loads(json.dumps(model.config.to_dict()))


def wanted(model: PreTrainedModel) -> Any:
    return tiny.reference(model, tiny.ids())


def same(program: Any, tensors: Any, logits: Any) -> None:
    found = interpreter.logits(program, tensors, tiny.ids())
    assert np.abs(found - logits).max() / np.abs(logits).max() < 2e-5
    assert np.array_equal(found.argmax(1), logits.argmax(1))


@pytest.mark.parametrize("kind", CASES)
def test_the_language_model_alone(kind: str, tmp_path: Path) -> None:
    model, config = made(kind)
    logits = wanted(model)
    assert logits.std() >= 0.9
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    described = families.model(config)
    assert described.kind == "text"
    same(described.text, dict(views(described, state)), logits)

    model.save_pretrained(tmp_path / "model")  # under the names that transformers writes
    source = resolve(str(tmp_path / "model"))
    same(source.model.text, source.tensors(), logits)
    assert source.generation()["eos_token_id"] == [2]


@pytest.mark.parametrize(("kind", "root"), [("llava", "language_model.model."), ("idefics3", "model.text_model.")])
def test_names_of_older_files(kind: str, root: str, tmp_path: Path) -> None:
    model, _ = made(kind)
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    older = {}
    for name, value in load_file(path).items():
        plain = name.removeprefix("model.").removeprefix("language_model.").removeprefix("text_model.")
        plain = plain.removeprefix("model.")
        is_head = plain == "lm_head.weight"
        of_text = plain.startswith(("embed_tokens", "layers", "norm"))
        prefix = ("language_model." if kind == "llava" else "") if is_head else root
        older[prefix + plain if of_text or is_head else name] = value
    save_file(older, path)
    same((source := resolve(str(tmp_path))).model.text, source.tensors(), wanted(model))


def test_an_old_flat_config_of_qwen2_vl() -> None:
    model, config = made("qwen2_vl")
    text = config.pop("text_config")
    flat = {**text, **config, "rope_parameters": None, "rope_theta": 1e6}
    flat["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 3, 3]}
    described = families.model(flat)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    same(described.text, dict(views(described, state)), wanted(model))


def test_what_older_llava_files_leave_out_is_llamas() -> None:
    text = {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064}
    described = families.model({"model_type": "llava", "text_config": text})
    assert described.weights["model.layers.31.mlp.up_proj.weight"].shape == (11008, 4096)
    assert described.weights["lm_head.weight"].shape == (32064, 4096)


def test_a_head_that_is_tied_by_the_outer_word() -> None:
    text = {**tiny.config("llama", tie_word_embeddings=False), "architectures": None}
    for kind, outer, tied in (("llava", True, True), ("llava", None, False), ("gemma3", None, True)):
        given = {"model_type": kind, "text_config": text, "tie_word_embeddings": outer}
        assert ("lm_head.weight" not in families.model(given).weights) == tied


def test_a_tensor_of_the_text_part_that_nobody_reads() -> None:
    model, config = made("llava")
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    state["model.language_model.layers.0.self_attn.q_proj.bias"] = np.ones(64, np.float32)
    with pytest.raises(FormatError, match=r"1 tensors that no llama model reads, such as 'model\.language_model"):
        views(families.model(config), state)
