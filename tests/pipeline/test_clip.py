"""The whole way for tiny CLIP and SigLIP folders: read, calibrate, distil, pack; the engine gives what training saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import by_hand
import tiny_clip
import tiny_towers
from command import result_of, tercet
from tercet import sources
from tercet.artifact import Artifact
from tercet.errors import FormatError, RecipeError, TercetError
from tercet.evaluate.originals import ModuleEncoder
from tercet.packing import PackedTensor, unpack
from tercet.pipeline import Data, quantize
from tercet.pipeline.distil import control, run_name
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.lessons import pair as pair_lesson
from tercet.pipeline.making import making
from tercet.recipe import Recipe
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources import Source

TRAIN = {"steps": 12, "batch": 16, "lr": 2e-3, "scale_lr": 2e-3, "norm_lr": 1e-3, "precision": "float32"}
FIELDS: dict[str, Any] = {"calibrate": {"tokens": 512}, "distil": {"kind": "clip"}, "train": TRAIN}
ROUNDED = {"calibrate": None, "distil": None, "train": None}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))


def recipe(name: str, **fields: Any) -> Recipe:
    shipped = Recipe.load(name).model_dump(mode="json")
    return Recipe.parse({**shipped, **FIELDS, **fields})


def opened(tmp_path: Path, family: str = "clip") -> Source:
    return sources.resolve(str(tiny_clip.folder(tmp_path / family, family)))


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_the_packed_folder_gives_what_the_student_gave(family: str, tmp_path: Path) -> None:
    source, chosen = opened(tmp_path, family), recipe("clip-q-all-e")
    data = Data(
        pictures=[tiny_clip.Coloured(64, half=True)],
        captions=["a the", "photo"],
        eval_pictures=[tiny_clip.Coloured(24, seed=1)],
    )
    report = quantize(source, tmp_path / "out", chosen, data)
    assert [row.name for row in report.rows] == ["original", chosen.name]
    assert report.rows[1].runs_on == "engine"
    # The same again by hand: what training ended with, in torch.
    made = making(source, chosen)
    result = by_hand.distilled(made, lesson_for(made, data, None))
    packed = Artifact.open(tmp_path / "out", check=True).tensors
    ternary = {name for name, planned in made.plan.items() if planned.quantizer}
    for name in ternary:
        found, expected = packed[name], result.tensors[name]
        assert isinstance(found, PackedTensor)
        assert np.array_equal(unpack(found).dequantize(), expected.dequantize()), name
    assert ternary
    student, encoder = ModuleEncoder(by_hand.student(made, result)), Encoder.open(tmp_path / "out")
    lesson = lesson_for(made, data, None)
    pixels = lesson.reader.pictures(tiny_clip.Coloured(24, seed=1).pixels)
    ids = lesson.reader.captions(["a photo of the red", "blue", "a a a a a a a a a a a a a a a a a a"])
    for encode, rows in (("encode_pixels", pixels), ("encode_ids", ids)):
        one, two = (getattr(each, encode)(rows) for each in (encoder, student))
        cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        assert cosines.min() > 0.999
        # Sums in another order move a value across a rounding of activations now and then, no more.
        assert np.abs(one - two).mean() < 0.01 * np.abs(two).mean()


def test_a_packed_folder_has_all_it_needs(tmp_path: Path) -> None:
    source, out = opened(tmp_path), tmp_path / "out"
    calibrated = recipe("clip-q-ffn", distil=None, train=None)
    quantize(source, out, calibrated, Data(pictures=[tiny_clip.Coloured(32)]))
    config = json.loads((out / "config.json").read_text())
    assert {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "README.md"} <= {
        path.name for path in out.iterdir()
    }
    assert config["calibration"]["pictures"]["name"] == "colours"
    ternary = {name for name, facts in config["tensors"].items() if facts["format"] == "t19"}
    assert ternary == {name for name in source.model.linears if ".mlp." in name}


@pytest.mark.parametrize(("name", "roles"), [("clip-q-all", ("linear",)), ("clip-q-all-e", ("linear", "embedding"))])
@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_what_each_recipe_makes_ternary(family: str, name: str, roles: tuple[str, ...], tmp_path: Path) -> None:
    model = opened(tmp_path, family).model
    for tensor, planned in Recipe.load(name).plan(model).items():
        assert (planned.quantizer is not None) == (model.weights[tensor].role in roles), tensor


def test_rounding_reads_no_pictures_and_training_asks_for_them(tmp_path: Path) -> None:
    source = opened(tmp_path)
    rounded = recipe("clip-q-all", **ROUNDED)
    assert quantize(source, tmp_path / "out", rounded).read == "rounded, without calibration"
    kept = Recipe.parse({"rules": [{"keep": "int8"}], "group_size": "row"})  # there is nothing to calibrate
    assert quantize(source, tmp_path / "out", kept).read == "rounded, without calibration"
    with pytest.raises(TercetError, match="reads pictures and captions"):
        quantize(source, tmp_path / "other", recipe("clip-q-all"))
    pictures = Data(pictures=[tiny_clip.Coloured(16)])
    with pytest.raises(RecipeError, match="kind: clip"):
        quantize(source, tmp_path / "other", recipe("clip-q-all", distil={"kl": 1}), pictures)
    assert not (tmp_path / "other").exists()


def test_an_exam_that_cannot_be_sat_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_lesson, "gather", None)
    blank = tiny_clip.Coloured(12, half=True, classes=())
    data = Data(pictures=[tiny_clip.Coloured(16)], eval_pictures=[blank])
    with pytest.raises(FormatError, match="without captions"):
        quantize(opened(tmp_path), tmp_path / "out", recipe("clip-q-all"), data)


def test_other_weights_are_another_origin(tmp_path: Path) -> None:
    """What is cached goes by it: a model that was changed in its folder must not meet what the old one left."""
    before = opened(tmp_path)
    path = tmp_path / "clip" / "model.safetensors"
    changed = {name: np.asarray(value + 1) for name, value in safetensors.numpy.load_file(path).items()}
    safetensors.numpy.save_file(changed, path, {"format": "pt"})
    after = sources.resolve(str(tmp_path / "clip"))
    data = Data(pictures=[tiny_clip.Coloured(8)])
    makings = [making(source, recipe("clip-q-all")) for source in (before, after)]
    lessons = [lesson_for(made, data, None) for made in makings]
    assert lessons[0].digest() == lessons[1].digest()
    assert run_name(makings[0], lessons[0]) != run_name(makings[1], lessons[1])


def test_the_control_trains_every_weight_of_the_original(tmp_path: Path) -> None:
    made = making(opened(tmp_path), recipe("clip-q-all"))
    module = control(made, lesson_for(made, Data(pictures=[tiny_clip.Coloured(32)]), None), tmp_path / "run")
    original = made.source.tensors()
    still = {n for n in made.model.weights if np.array_equal(module.weight(n).detach().numpy(), original[n])}
    keys = {name for name in made.model.weights if name.endswith("k_proj.bias")}  # softmax sees no change for all keys
    assert still <= {*keys, made.model.scale}


def test_the_command_reads_a_table_and_class_folders(tmp_path: Path) -> None:
    place = tiny_clip.folder(tmp_path / "clip")
    pictures = tiny_clip.Coloured(24)
    lines = ["image,caption"]
    for index, (pixels, group) in enumerate(zip(pictures.pixels, pictures.groups, strict=True)):
        name = list(tiny_clip.COLOURS)[group]
        path = tmp_path / "classes" / name / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        lines += [f"classes/{name}/{index}.png,a photo of the {name}", f"classes/{name}/{index}.png,{name}"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    (tmp_path / "more.txt").write_text("the photo\n\na photo\n")
    chosen = recipe("clip-q-all", train={**TRAIN, "steps": 2, "batch": 8})
    (tmp_path / "short.json").write_text(chosen.model_dump_json())
    options = ("--recipe", tmp_path / "short.json", "--pictures", tmp_path / "pairs.csv", "--captions")
    examined = ("--eval-pictures", tmp_path / "classes", "--threads", 1)
    result = result_of("quantize", place, "-o", tmp_path / "out", *options, tmp_path / "more.txt", *examined)
    assert [row["name"] for row in result["rows"]] == ["original", chosen.name]
    assert set(result["rows"][0]["scores"]) == {"classes top1", "classes top5", "classes mean_per_class"}
    assert result["rows"][1]["ternary_share"] > 0.5
    assert "| original |" in (tmp_path / "out" / "README.md").read_text()
    text = tercet("quantize", place, "-o", tmp_path / "out", *options, tmp_path / "more.txt", *examined)
    assert "classes top-1" in text.stdout
    refused = tercet("quantize", place, "-o", tmp_path / "out", "--recipe", "clip-q-all", "--pictures", tmp_path / "no")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("tercet: ")


def test_options_of_language_models_are_not_swallowed(tmp_path: Path) -> None:
    place = tiny_clip.folder(tmp_path / "clip")
    for option, said in (
        ("--text", "does not read text"),
        ("--eval-text", "does not read eval-text"),
        ("--eval-tokens", "evaluate.tokens is not read"),
    ):
        refused = tercet("quantize", place, "-o", tmp_path / "out", "--recipe", "clip-q-all", option, "7")
        assert refused.exit_code == 1
        assert said in refused.stderr


def test_tokens_and_seed_are_those_of_the_calibration(tmp_path: Path) -> None:
    place = tiny_clip.folder(tmp_path / "clip")
    for index, pixels in enumerate(tiny_clip.Coloured(8).pixels):
        folder = tmp_path / "classes" / list(tiny_clip.COLOURS)[index % 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (tmp_path / "calibrated.json").write_text(recipe("clip-q-all", distil=None, train=None).model_dump_json())
    options = ("--recipe", tmp_path / "calibrated.json", "--pictures", tmp_path / "classes", "--tokens", 100)
    result_of("quantize", place, "-o", tmp_path / "out", *options, "--seed", 3)
    written = json.loads((tmp_path / "out" / "recipe.json").read_text())["calibrate"]
    assert (written["tokens"], written["seed"]) == (100, 3)
    assert Recipe.parse(json.loads((tmp_path / "out" / "recipe.json").read_text())).plan(
        sources.resolve(str(place)).model
    )
