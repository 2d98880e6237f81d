"""A rotated recipe: the same model before rounding, calibrated, distilled and run as its config says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import by_hand
import tiny
import tiny_clip
import tiny_towers
from tercet import families, sources
from tercet.artifact import Artifact
from tercet.evaluate.originals import FloatModel, ModuleEncoder, ModuleLogits
from tercet.evaluate.verify import verify
from tercet.modules.module import ProgramModule
from tercet.pipeline import Data, quantize
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.making import making
from tercet.pipeline.rotation import rotated_source
from tercet.program import hadamard
from tercet.recipe import Recipe, Rotate
from tercet.runtime import Engine
from tercet.runtime.pictures.encoder import Encoder

ONE = {"num_hidden_layers": 1}


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sources.Source:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tercet.data.default_texts", lambda _split: None)
    return sources.resolve(str(tiny.save_folder(tmp_path / "source")))


@pytest.mark.parametrize("rotate", [True, "folded"])
def test_a_rotated_source_is_the_same_function_of_other_weights(source: sources.Source, rotate: Rotate) -> None:
    turned = rotated_source(source, rotate)
    module = ProgramModule(turned.model, turned.tensors())
    ids = tiny.ids(16, seed=1)
    np.testing.assert_allclose(ModuleLogits(module)(ids), FloatModel(source.pretrained())(ids), rtol=1e-3, atol=1e-4)


def test_every_input_may_be_rotated_at_run_time(source: sources.Source) -> None:
    turned = rotated_source(source, table=False)
    rotations = families.model(turned.config).rotations
    assert rotations == {
        name: source.model.weights[name].shape[1] & -source.model.weights[name].shape[1]
        for name in source.model.linears
        if "layers" in name
    }
    for name, tensor in source.tensors().items():
        if name in rotations:
            assert not np.allclose(turned.tensors()[name], tensor), name
            back = hadamard.rotated(turned.tensors()[name], rotations[name])
            np.testing.assert_allclose(back, tensor, rtol=1e-4, atol=1e-5)
        else:
            assert np.array_equal(turned.tensors()[name], tensor), name


@pytest.mark.parametrize("rotate", [True, "folded"])
def test_a_rotated_recipe_goes_the_whole_way(source: sources.Source, tmp_path: Path, rotate: Rotate) -> None:
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT * 40, encoding="utf-8")
    fields = {
        "rules": [{"quantizer": "learned"}],
        "rotate": rotate,
        "group_size": 32,
        "calibrate": {"tokens": 256, "context": 32, "text": str(text)},
        "distil": {"text": str(text)},
        "train": {"steps": 2, "batch": 2, "context": 16, "lr": 1e-5, "scale_lr": 1e-5, "norm_lr": 0, "clip": 1e-3},
    }
    data, plain = Data(examine=False), Recipe.parse({**fields, "distil": None, "train": None})
    calibrated = quantize(source, tmp_path / "a", plain, data)
    distilled = quantize(source, tmp_path / "b", Recipe.parse(fields), data)
    for report in (calibrated, distilled):
        words = {"rotate": True, "table": True} | ({"stream": True} if rotate == "folded" else {})
        assert Artifact.open(report.folder).config["model"]["tercet"] == words
        assert verify(report.folder).ok
    ids = tiny.ids(32, seed=3)
    near, far = (Engine.open(report.folder).logits(ids) for report in (calibrated, distilled))
    original = FloatModel(source.pretrained())(ids)
    # Two steps of almost nothing leave the model where calibration brought it: trained in the same rotated terms.
    assert np.abs(near - far).mean() < 0.1 * np.abs(near - original).mean()


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_towers_are_rotated_the_whole_way(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    source = sources.resolve(str(tiny_clip.folder(tmp_path / "source", family, text=ONE, vision=ONE)))
    train = {"steps": 4, "batch": 8, "lr": 2e-3, "scale_lr": 1e-3, "norm_lr": 1e-3, "precision": "float32"}
    fields = {"rules": [{"quantizer": "learned"}], "rotate": True, "group_size": "row", "calibrate": {"tokens": 512}}
    recipe = Recipe.parse({**fields, "distil": {"kind": "clip"}, "train": train})
    data = Data(pictures=[tiny_clip.Coloured(32)], eval_pictures=[tiny_clip.Coloured(8, seed=1)])
    folder = quantize(source, tmp_path / "out", recipe, data).folder
    packed = Artifact.open(folder, check=True)
    assert packed.config["model"]["tercet"] == {"image": {"rotate": True}, "text": {"rotate": True}}
    assert set(families.model(packed.config["model"]).rotations) == set(source.model.linears)
    found = verify(folder)
    assert found.ok
    assert found.transforms > 0
    made = making(source, recipe)
    result = by_hand.distilled(made, lesson_for(made, data, None))
    engine, pixels, ids = Encoder.open(folder, activations="float32"), tiny_towers.pixels(4), tiny_towers.texts(4)
    for encode, rows in (("encode_pixels", pixels), ("encode_ids", ids)):
        student = getattr(ModuleEncoder(by_hand.student(made, result, "a16")), encode)(rows)
        assert np.abs(getattr(engine, encode)(rows) - student).max() < 1e-4 * np.abs(student).max()
