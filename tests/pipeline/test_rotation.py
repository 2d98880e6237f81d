"""A rotated recipe: the same model before rounding, calibrated, distilled and run as its config says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from tercet import families, sources
from tercet.artifact import Artifact
from tercet.evaluate.originals import FloatModel
from tercet.evaluate.verify import verify
from tercet.pipeline import quantize
from tercet.pipeline.rotation import rotated_source
from tercet.recipe import Recipe
from tercet.runtime import Engine


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> sources.Source:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tercet.data.default_text", lambda _split: None)
    return sources.resolve(str(tiny.save_folder(tmp_path / "source")))


def test_a_rotated_source_is_the_same_function_of_other_weights(source: sources.Source) -> None:
    turned = rotated_source(source)
    ids = tiny.ids(16, seed=1)
    np.testing.assert_allclose(
        FloatModel(turned.pretrained())(ids), FloatModel(source.pretrained())(ids), rtol=1e-3, atol=1e-4
    )
    rotations = families.model(turned.config).text.rotations
    assert set(rotations) == {name for name in source.model.text.linears if "layers" in name}
    parameters = dict(turned.pretrained().named_parameters())
    for name, tensor in source.tensors().items():
        assert np.allclose(turned.tensors()[name], tensor) == (name not in rotations), name
        np.testing.assert_allclose(turned.tensors()[name], parameters[name].detach(), rtol=1e-5, atol=1e-6)


def test_a_rotated_recipe_goes_the_whole_way(source: sources.Source, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT * 40, encoding="utf-8")
    fields = {
        "rules": [{"quantizer": "learned"}],
        "rotate": True,
        "group_size": 32,
        "calibrate": {"tokens": 256, "context": 32, "text": str(text)},
        "distil": {"text": str(text)},
        "train": {"steps": 2, "batch": 2, "context": 16, "lr": 1e-5, "scale_lr": 1e-5, "norm_lr": 0, "clip": 1e-3},
    }
    calibrated = quantize(
        source, tmp_path / "a", Recipe.parse({**fields, "distil": None, "train": None}), eval_tokens=0
    )
    distilled = quantize(source, tmp_path / "b", Recipe.parse(fields), eval_tokens=0)
    for report in (calibrated, distilled):
        assert Artifact.open(report.folder).config["model"]["tercet"] == {"rotate": True}
        assert verify(report.folder).ok
    ids = tiny.ids(32, seed=3)
    near, far = (Engine.open(report.folder).logits(ids) for report in (calibrated, distilled))
    original = FloatModel(source.pretrained())(ids)
    # Two steps of almost nothing leave the model where calibration brought it: trained in the same rotated terms.
    assert np.abs(near - far).mean() < 0.1 * np.abs(near - original).mean()
