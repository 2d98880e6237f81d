"""A folder with two towers: every tensor comes back, the pictures' settings travel along, sizes are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import folders
from tercet import families
from tercet.artifact import Artifact
from tercet.errors import FormatError

LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**LAYERS, "image_size": 16, "patch_size": 4}
TEXT = {**LAYERS, "vocab_size": 40, "max_position_embeddings": 7, "eos_token_id": 39}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"model_type": "clip", "projection_dim": 24, "text_config": TEXT, "vision_config": VISION},
    "siglip": {"model_type": "siglip", "text_config": TEXT, "vision_config": VISION},
}
FORMATS = {"linear": "t2", "embedding": "t19", "head": "q8", "position": "f16"}
FILES = {"tokenizer.json": b"{}", "preprocessor_config.json": b'{"do_resize": true}'}


def tensors(config: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for seed, (name, weight) in enumerate(families.model(config).weights.items()):
        if weight.role == "vector":
            made[name] = np.linspace(0.5, 1.5, weight.shape[0], dtype=np.float32)
        else:
            rows, columns = weight.shape
            made[name] = folders.matrix(FORMATS[weight.role], rows, columns, columns, False, seed)
    return made


def save(folder: Path, config: dict[str, Any], **changed: Any) -> Path:
    values = changed or {"tensors": tensors(config)}
    folders.save(folder, model=config, tokenizer_files=FILES, generation={}, **values)
    return folder


@pytest.mark.parametrize("family", CONFIGS)
def test_both_towers_come_back(family: str, tmp_path: Path) -> None:
    config = CONFIGS[family]
    opened, expected = Artifact.open(save(tmp_path / "model", config), check=True), tensors(config)
    weights = families.model(opened.config["model"]).weights
    assert weights.keys() == opened.tensors.keys()
    for name, weight in weights.items():
        assert tuple(opened.tensors[name].shape) == weight.shape
        one, other = (getattr(each, "codes", each) for each in (opened.tensors[name], expected[name]))
        assert np.array_equal(one, other)
    assert opened.config["generation"] == {"eos_token_id": []}
    assert json.loads((opened.folder / "preprocessor_config.json").read_text()) == {"do_resize": True}


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("vision_config", {"num_hidden_layers": 1000}, "1000 layers, but only"),
        ("text_config", {"num_hidden_layers": 1000}, "1000 layers, but only"),
        (
            "vision_config",
            {"image_size": 1 << 40},
            r"model\.vision_config\.image_size is '1099511627776', not a positive",
        ),
        ("vision_config", {"patch_size": 0}, r"model\.vision_config\.patch_size is '0', not a positive"),
        ("text_config", {"vocab_size": 41}, "has 40 rows for a vocabulary of 41"),
    ],
)
def test_sizes_are_checked(part: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    config = {**CONFIGS["clip"], part: {**CONFIGS["clip"][part], **changes}}
    with pytest.raises(FormatError, match=message):
        save(tmp_path / "model", config, tensors=tensors(CONFIGS["clip"]))


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_tower_without_settings(part: str, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=rf"model\.{part} must be an object"):
        save(tmp_path / "model", {**CONFIGS["clip"], part: 3}, tensors=tensors(CONFIGS["clip"]))
