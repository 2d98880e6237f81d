"""The whole way on the first three blocks of the real SmolLM2: source, calibration, packed folder, engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import smollm2
from tercet import sources
from tercet.data import windows
from tercet.evaluate import compare
from tercet.evaluate.models import EngineModel
from tercet.evaluate.originals import FloatModel
from tercet.pipeline import Data, quantize
from tercet.recipe import Recipe
from tercet.runtime import Engine, Tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> sources.Source:
    folder = smollm2.truncated(sources.resolve("smollm2"), tmp_path_factory.mktemp("smollm2") / "three", 3)
    return sources.resolve(str(folder))


@pytest.fixture(scope="module")
def folders(source: sources.Source, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("packed")
    torch.set_num_threads(1)
    file = place / "text.txt"
    file.write_text(smollm2.text(0), encoding="utf-8")
    recipes = {name: Recipe.load(name) for name in ("w1.58", "w1.58-rounded")} | {"distilled": distilled(file)}
    for name, recipe in recipes.items():
        quantize(source, place / name, recipe.changed(tokens=2048), Data(text=file, examine=False))
    return {name: place / name for name in recipes}


def distilled(text: Path) -> Recipe:
    """W1.58 with levels that are trained: a few hundred tokens of it, in float32 as on any CPU."""
    fields = Recipe.load("w1.58").model_dump(mode="json")
    fields["rules"][0] = {"quantizer": "learned"}
    fields["distil"] = {"text": str(text)}
    fields["train"] = {"steps": 12, "batch": 4, "context": 64, "lr": 4e-4, "scale_lr": 4e-4, "norm_lr": 4e-4}
    fields["train"]["precision"] = "float32"
    return Recipe.parse(fields)


@pytest.fixture(scope="module")
def held_out(source: sources.Source) -> np.ndarray:
    return windows(Tokenizer.open(source.folder).encode(smollm2.text(1)), 256, 1024)


def test_calibration_saves_most_of_what_rounding_destroys(
    source: sources.Source, folders: dict[str, Path], held_out: np.ndarray
) -> None:
    models = {name: EngineModel(Engine.open(folder)) for name, folder in folders.items()}
    got = compare(models, held_out, FloatModel(source.pretrained()))
    assert got["w1.58"].kl < 0.5 * got["w1.58-rounded"].kl
    assert got["w1.58"].top1_agreement > got["w1.58-rounded"].top1_agreement
    assert got["distilled"].kl < 0.95 * got["w1.58"].kl


@pytest.mark.parametrize("recipe", ["w1.58", "distilled"])
def test_the_engine_computes_what_torch_computes_with_the_same_weights(
    source: sources.Source, folders: dict[str, Path], held_out: np.ndarray, recipe: str
) -> None:
    teacher = FloatModel(smollm2.dequantized(source, folders[recipe]))
    checked = Engine.open(folders[recipe], activations="float32", kv="float32")
    models = {"int8": EngineModel(Engine.open(folders[recipe])), "float": EngineModel(checked)}
    got = compare(models, held_out[:2], teacher)
    assert got["int8"].kl < 0.01
    assert got["int8"].top1_agreement >= 0.95
    assert got["float"].kl < 1e-6
    wanted, logits = teacher(held_out[0]), checked.logits(held_out[0])
    assert np.abs(logits - wanted).max() < 1e-4 * np.abs(wanted).max()
