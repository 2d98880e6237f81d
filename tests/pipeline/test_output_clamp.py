"""Clipped outputs from a recipe to the engine: the layer of Crulis et al."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from tercet import families
from tercet.artifact import Artifact
from tercet.errors import RecipeError
from tercet.pipeline import Data, quantize
from tercet.pipeline.output_clamp import clamped
from tercet.quantizers import CrulisConfig, quantize_
from tercet.recipe import Recipe
from tercet.runtime import Engine


def recipe(*rules: dict[str, Any]) -> Recipe:
    fields = {"rules": [*rules, {"role": ["embedding", "head"], "keep": "float32"}], "group_size": 32}
    return Recipe.parse({**fields, "calibrate": None})


def config_of(*rules: dict[str, Any]) -> Any:
    config = tiny.config("llama", num_hidden_layers=4)
    model = families.model(config)
    return clamped(config, model, recipe(*rules).plan(model)).get("tercet")


CRULIS = {"quantizer": {"name": "crulis", "clip": 3.0}}
FLOAT = {"keep": "float32", "role": "linear"}


def test_config_says_what_is_clipped() -> None:
    assert config_of({"quantizer": "l2"}) is None
    assert config_of(CRULIS) == {"clip": 3.0}
    assert config_of({"quantizer": {"name": "crulis", "clip": None}}) is None
    middle = [{**CRULIS, "match": f"model.layers.{index}.*"} for index in (1, 2)]
    assert config_of(*middle, FLOAT) == {"clip": 3.0, "blocks": [1, 3]}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{**CRULIS, "match": "*.mlp.*"}, {"quantizer": "l2"}], "block 0"),
        ([{"quantizer": "l2", "match": "model.layers.1.*"}, CRULIS], "blocks 0 to 3"),
        ([{**CRULIS, "match": "model.layers.1.*"}, {"quantizer": "crulis"}], "blocks 0 to 3"),
    ],
)
def test_what_the_engine_cannot_clip_is_refused(rules: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        config_of(*rules)


def test_the_engine_clips_what_training_clips(tmp_path: Path) -> None:
    source = tiny.save_folder(tmp_path / "source", "llama")
    rules = recipe({"quantizer": {"name": "crulis", "clip": 0.5}})
    quantize(str(source), tmp_path / "packed", rules, eval_tokens=0)
    assert Artifact.open(tmp_path / "packed").config["model"]["tercet"] == {"clip": 0.5}
    student, _, tensors = tiny.model("llama")
    config = CrulisConfig(clip=0.5, group_size=32)
    quantize_(student, {name: config for name in tensors if "proj" in name})
    ids = tiny.ids(20)
    with torch.no_grad():
        wanted = student(torch.from_numpy(ids)[None]).logits[0].numpy()
    engine = Engine.open(tmp_path / "packed", activations="float32", kv="float32")
    assert np.abs(engine.logits(ids) - wanted).max() < 1e-3 * np.abs(wanted).max()
    plain, _, _ = tiny.model("llama")
    quantize_(plain, {name: config.model_copy(update={"clip": None}) for name in tensors if "proj" in name})
    with torch.no_grad():
        unclipped = plain(torch.from_numpy(ids)[None]).logits[0].numpy()
    assert np.abs(unclipped - wanted).max() > 0.1 * np.abs(wanted).max()
