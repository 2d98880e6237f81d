"""Clipped outputs from a recipe to the engine: the layer of Crulis et al."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import by_hand
import tiny
import tiny_clip
import tiny_towers
from tercet import families
from tercet.artifact import Artifact
from tercet.errors import RecipeError
from tercet.evaluate.originals import FloatModel, ModuleEncoder, ModuleLogits
from tercet.modules.module import ProgramModule
from tercet.pipeline import Data, quantize
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.making import making
from tercet.pipeline.output_clamp import clamped
from tercet.pipeline.student import build_student
from tercet.recipe import Recipe
from tercet.runtime import Engine
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources import Source, resolve


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
    made = making(resolve(str(source)), rules)
    quantize(made.source, tmp_path / "packed", rules, Data(examine=False))
    assert Artifact.open(tmp_path / "packed").config["model"]["tercet"] == {"clip": 0.5}
    ids = tiny.ids(20)
    wanted, unclipped = (
        ModuleLogits(build_student(model, made.source.tensors(), made.plan, {}, "a16"))(ids)
        for model in (made.student, made.model)
    )
    engine = Engine.open(tmp_path / "packed", activations="float32", kv="float32")
    assert np.abs(engine.logits(ids) - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert np.abs(unclipped - wanted).max() > 0.1 * np.abs(wanted).max()


def test_transformers_with_clips_by_hand_is_the_student(tmp_path: Path) -> None:
    """Each linear of a block, its bias added, is clipped; nothing else is."""
    made = making(
        resolve(str(tiny.save_folder(tmp_path / "source", "qwen2"))),
        recipe({"quantizer": {"name": "crulis", "clip": 0.5}}),
    )
    student = build_student(made.student, made.source.tensors(), made.plan, {}, "a16")
    plain = made.source.pretrained()
    plain.load_state_dict({name: student.weight(name) for name in made.model.weights}, strict=False)
    for name, module in plain.named_modules():
        if "_proj" in name:
            module.register_forward_hook(lambda _module, _inputs, output: output.clamp(-0.5, 0.5))
    ids = tiny.ids(20)
    np.testing.assert_allclose(ModuleLogits(student)(ids), FloatModel(plain)(ids), rtol=1e-3, atol=1e-4)


class TestTowers:
    """Each part of an image-text model says by itself what is clipped."""

    RULES = (
        {"match": "vision_model.*", "quantizer": {"name": "crulis", "clip": 0.5}},
        {"match": "text_model.encoder.layers.0.*", "quantizer": {"name": "crulis", "clip": 0.75}},
        {"quantizer": "learned"},
        {"role": ["embedding", "head"], "keep": "float32"},
    )

    @pytest.fixture
    def source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
        monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
        return resolve(str(tiny_clip.folder(tmp_path / "source")))

    def recipe(self, *rules: dict[str, Any], **fields: Any) -> Recipe:
        return Recipe.parse({"rules": rules or self.RULES, "group_size": "row", "calibrate": None, **fields})

    def test_training_and_the_engine_clip_alike(self, source: Source, tmp_path: Path) -> None:
        train = {"steps": 3, "batch": 8, "precision": "float32"}
        chosen = self.recipe(distil={"kind": "clip"}, train=train)
        made, data = making(source, chosen), Data(pictures=[tiny_clip.Coloured(24)], examine=False)
        quantize(source, tmp_path / "packed", chosen, data)
        packed = Artifact.open(tmp_path / "packed")
        assert packed.config["model"]["tercet"] == {
            "image": {"clip": 0.5},
            "text": {"clip": 0.75, "blocks": [0, 1]},
        }
        student = by_hand.student(made, by_hand.distilled(made, lesson_for(made, data, None)), "a16")
        plain = ProgramModule(made.model, {name: student.weight(name).detach().numpy() for name in made.model.weights})
        engine = Encoder.open(tmp_path / "packed", activations="float32")
        pixels, ids = tiny_towers.pixels(4), tiny_towers.texts(4)
        for encode, rows in (("encode_pixels", pixels), ("encode_ids", ids)):
            wanted, unclipped = (getattr(ModuleEncoder(module), encode)(rows) for module in (student, plain))
            size = np.abs(wanted).max()
            assert np.abs(getattr(engine, encode)(rows) - wanted).max() < 1e-3 * size
            assert np.abs(unclipped - wanted).max() > 0.05 * size

    @pytest.mark.parametrize("name", ["vision_model.embeddings.patch_embedding.weight", "text_projection.weight"])
    def test_only_linears_of_blocks_are_clipped(self, name: str, source: Source) -> None:
        clipped = {"match": name, "role": ["embedding", "head"], "quantizer": "crulis"}
        with pytest.raises(RecipeError, match=f"^{name}: only linears of blocks clip"):
            making(source, self.recipe(clipped, *self.RULES))
