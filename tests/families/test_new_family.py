"""The page for contributors adds a family by a file and a line: its code, as it stands there, converts and runs."""

from __future__ import annotations

import json
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

import tiny
import tiny_towers
from tercet import artifact, families
from tercet.errors import ModelError
from tercet.packing import pack
from tercet.program import Model, interpreter
from tercet.program.patches import patches
from tercet.runtime import Engine
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources import resolve

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"
BLOCKS = re.findall(r"```python\n# src/tercet/families/(\S+\.py)(.*?)\n(.*?)```", PAGE.read_text(), re.S)


def add(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's file and line of a family, added."""
    module = types.ModuleType(f"tercet.families.{name}")
    exec(next(code for file, _, code in BLOCKS if file == f"{name}.py"), module.__dict__)
    lines = [code for _, where, code in BLOCKS if "in FAMILIES" in where]
    table = eval("{" + next(line for line in lines if f"{name}.FAMILY" in line) + "}", {name: module})
    monkeypatch.setattr(families, "FAMILIES", {**families.FAMILIES, **table})


def weights(model: Model, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {
        name: (rng.normal(size=weight.shape) * (weight.shape[-1] ** -0.5 if len(weight.shape) > 1 else 0.2)).astype(
            "f4"
        )
        for name, weight in model.weights.items()
    }


def folder(place: Path, config: dict[str, Any], stored: dict[str, NDArray[np.float32]]) -> Path:
    place.mkdir()
    (place / "config.json").write_text(json.dumps(config))
    tiny.tokenizer().save(str(place / "tokenizer.json"))
    save_file({name: np.ascontiguousarray(value) for name, value in stored.items()}, place / "model.safetensors")
    return place


def packed(place: Path, model: Model, config: dict[str, Any], tensors: Any) -> Path:
    made = {n: pack(np.array(tensors[n]), "f32") if len(w.shape) == 2 else tensors[n] for n, w in model.weights.items()}
    parts: dict[str, Any] = {"tokenizer_files": {}, "recipe": {}, "card": "", "generation": {}, "source": {}}
    artifact.save(place, model=config, tensors=made, calibration={}, **parts)
    return place


def close(found: Any, wanted: Any) -> None:
    assert np.abs(found - wanted).max() < 2e-5 * np.abs(wanted).max()


def test_a_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_type": "lark", **tiny.SHAPE, "qkv_bias": True}
    with pytest.raises(ModelError, match="model_type is 'lark'"):
        families.model(config)
    add("lark", monkeypatch)
    tensors = weights(families.model(config))
    stored = {name: value for name, value in tensors.items() if not re.search(r"[qkv]_proj", name)}
    for layer in range(2):
        for kind in ("weight", "bias"):
            rows = [tensors[f"model.layers.{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            stored[f"model.layers.{layer}.self_attn.wqkv.{kind}"] = np.concatenate(rows)
    source = resolve(str(folder(tmp_path / "original", config, stored)))
    source.check()
    assert all(np.array_equal(value, tensors[name]) for name, value in source.tensors().items())
    engine = Engine.open(
        packed(tmp_path / "packed", source.model, source.config, source.tensors()), activations="float32", kv="float32"
    )
    close(engine.logits(tiny.ids()), interpreter.logits(source.model.text, tensors, tiny.ids()))


def test_an_image_text_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add("finch", monkeypatch)
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    text = {key: tiny_towers.TEXT[key] for key in (*sizes, "vocab_size", "max_position_embeddings")}
    config = {"model_type": "finch", "projection_dim": 40, "text_config": text, "vision_config": tiny_towers.VISION}
    tensors = weights(families.model(config))
    source = resolve(str(folder(tmp_path / "original", config, tensors)))
    assert source.model.kind == "pair"
    encoder = Encoder.open(
        packed(tmp_path / "packed", source.model, source.config, source.tensors()), activations="float32"
    )
    pixels, ids = tiny_towers.pixels(), tiny_towers.texts()
    rows = patches(pixels, source.model.pixels.patch)
    close(encoder.encode_pixels(pixels), interpreter.embeddings(source.model.image, tensors, rows))
    close(encoder.encode_ids(ids), interpreter.embeddings(source.model.text, tensors, ids))
