"""The whole way for tiny CLIP and SigLIP folders: read, calibrate, distil, pack; the engine gives what training saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

import tiny_clip
import tiny_towers
from command import result_of, tercet
from tercet import sources
from tercet.artifact import Artifact
from tercet.data import pairs as data_module
from tercet.data.captioned import captioned
from tercet.data.pairs import gather
from tercet.data.sets import open_set
from tercet.errors import FormatError, RecipeError, StorageError, TercetError
from tercet.evaluate.pictures import measure
from tercet.packing import PackedTensor, unpack
from tercet.pipeline.clip import run as pipeline
from tercet.pipeline.clip.distil import distil, run_name, train_on
from tercet.pipeline.clip.exam import examine, prepare
from tercet.pipeline.clip.model import ClipModel
from tercet.pipeline.clip.rows import examined
from tercet.pipeline.clip.start import begin
from tercet.pipeline.clip.student import build_student
from tercet.program.patches import patches
from tercet.recipe import Recipe
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.encoder import Encoder

TRAIN = {"steps": 12, "batch": 16, "lr": 2e-3, "scale_lr": 2e-3, "norm_lr": 1e-3, "precision": "float32"}
FIELDS: dict[str, Any] = {"calibrate": {"tokens": 512, "context": 2}, "distil": {"kind": "clip"}, "train": TRAIN}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))


def recipe(name: str, **fields: Any) -> Recipe:
    shipped = Recipe.load(name).model_dump(mode="json")
    return Recipe.parse({**shipped, **FIELDS, **fields})


def opened(tmp_path: Path, family: str = "clip") -> ClipModel:
    place = tmp_path / family
    return ClipModel.open(sources.resolve(str(tiny_clip.folder(place, family))))


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_the_packed_folder_gives_what_the_student_gave(family: str, tmp_path: Path) -> None:
    model, chosen = opened(tmp_path, family), recipe("clip-q-all-e")
    pictures, exam = tiny_clip.Coloured(64, half=True), tiny_clip.Coloured(24, seed=1)
    report = pipeline.quantize(
        model, tmp_path / "out", chosen, [pictures], captions=["a the", "photo"], examined_on=[exam]
    )
    assert [row.name for row in report.rows] == ["original", chosen.name]
    assert report.rows[1].runs_on == "engine"
    # The same again by hand: what training ended with, in torch.
    data = gather([pictures], model.reader(), 12 * 16, 0, captions=["a the", "photo"])
    plan = chosen.plan(model.towers)
    start = begin(model.towers, model.tensors, chosen, plan, data, lambda *_: None)
    made = distil(
        model.towers,
        model.tensors,
        model.source.origin,
        chosen,
        plan,
        start.tensors,
        data,
        tmp_path / "cache" / "training",
        lambda *_: None,
    )
    artifact = Artifact.open(tmp_path / "out", check=True)
    for name, tensor in artifact.tensors.items():
        if isinstance(tensor, PackedTensor) and plan[name].quantizer:
            found, expected = unpack(tensor), made.tensors[name]
            assert np.array_equal(found.dequantize(), expected.dequantize()), name
    student = build_student(
        model.towers,
        {**{n: model.tensors[n] for n in model.towers.weights}, **_vectors(made.tensors)},
        plan,
        {n: t for n, t in made.tensors.items() if n in plan},
        "a8",
    )
    pixels = model.reader().pictures(exam.pixels)
    ids = model.reader().labels(["a photo of the red", "blue", "a a a a a a a a a a a a a a a a a a"])
    encoder = Encoder.open(tmp_path / "out")
    with torch.no_grad():
        image = student.encode_patches(torch.from_numpy(patches(pixels, model.towers.pixels.patch))).embedding.numpy()
        text = student.encode_ids(torch.from_numpy(ids)).embedding.numpy()
    for one, two in ((encoder.encode_pixels(pixels), image), (encoder.encode_ids(ids), text)):
        cosines = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
        assert cosines.min() > 0.999
        # Sums in another order move a value across a rounding of activations now and then, no more.
        assert np.abs(one - two).mean() < 0.01 * np.abs(two).mean()


def _vectors(tensors: Any) -> dict[str, Any]:
    return {name: value for name, value in tensors.items() if isinstance(value, np.ndarray) and value.ndim == 1}


def test_a_packed_folder_has_all_it_needs(tmp_path: Path) -> None:
    model, out = opened(tmp_path), tmp_path / "out"
    pipeline.quantize(model, out, recipe("clip-q-ffn", distil=None, train=None), [tiny_clip.Coloured(32)])
    config = json.loads((out / "config.json").read_text())
    assert {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "README.md"} <= {
        path.name for path in out.iterdir()
    }
    assert config["calibration"]["pictures"]["name"] == "colours"
    ternary = {name for name, facts in config["tensors"].items() if facts["format"] == "t19"}
    assert ternary == {name for name in model.towers.linears if ".mlp." in name}


@pytest.mark.parametrize(("name", "roles"), [("clip-q-all", ("linear",)), ("clip-q-all-e", ("linear", "embedding"))])
@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_what_each_recipe_makes_ternary(family: str, name: str, roles: tuple[str, ...], tmp_path: Path) -> None:
    towers = opened(tmp_path, family).towers
    for tensor, planned in Recipe.load(name).plan(towers).items():
        assert (planned.quantizer is not None) == (towers.weights[tensor].role in roles), tensor


def test_rounding_reads_no_pictures_and_training_asks_for_them(tmp_path: Path) -> None:
    model = opened(tmp_path)
    rounded = recipe("clip-q-all", calibrate=None, distil=None, train=None)
    assert pipeline.quantize(model, tmp_path / "out", rounded).data is None
    with pytest.raises(TercetError, match="reads pictures and captions"):
        pipeline.quantize(model, tmp_path / "other", recipe("clip-q-all"))
    crulis = {"rules": [{"quantizer": "crulis"}], "calibrate": None, "distil": None, "train": None}
    with pytest.raises(RecipeError, match="towers do not"):
        pipeline.quantize(model, tmp_path / "other", recipe("clip-q-all", **crulis))
    with pytest.raises(RecipeError, match="kind: clip"):
        pipeline.quantize(model, tmp_path / "other", recipe("clip-q-all", distil={"kl": 1}), [tiny_clip.Coloured(16)])


def test_rows_draw_captions_and_keep_groups(tmp_path: Path) -> None:
    reader = opened(tmp_path).reader()
    pictures = tiny_clip.Coloured(16, half=True)
    data = gather([pictures], reader, 40, 0, captions=["photo", "red", "photo"])
    assert len(data.rows) == 40
    assert len(data.patches) == 16  # 8 with captions, 8 without
    assert len(data.more_patches) == 8
    assert len(data.more_ids) == 1  # "red" is a picture's caption already
    arrays = data.arrays(None, None)
    assert all(len(array) == 40 for array in arrays.values())
    texts = {text: row.tobytes() for text in ("red", "a photo of the red") for row in reader.labels([text])}
    red = arrays["ids"][
        arrays["groups"] == arrays["groups"][[row.tobytes() in texts.values() for row in arrays["ids"]]][0]
    ]
    assert {row.tobytes() for row in red} == set(texts.values())
    again = gather([pictures], reader, 40, 0, captions=["photo", "red", "photo"])
    assert again.digest == data.digest
    assert gather([pictures], reader, 40, 1).digest != data.digest


def test_many_pictures_are_kept_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, pictures = opened(tmp_path).reader(), tiny_clip.Coloured(16)
    small = gather([pictures], reader, 20, 0)
    monkeypatch.setattr(data_module, "LARGE", 1)
    large = gather([pictures], reader, 20, 0)
    assert isinstance(large.patches, np.memmap)
    assert np.array_equal(small.patches, large.patches)
    assert small.digest == large.digest
    monkeypatch.setattr("os.posix_fallocate", _no_room)
    with pytest.raises(StorageError, match="no room"):
        gather([pictures], reader, 20, 0)


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_exams_know_right_from_wrong(tmp_path: Path) -> None:
    reader = opened(tmp_path).reader()
    exam = prepare(tiny_clip.Coloured(12), reader)
    of = {row.tobytes(): index // 2 for index, row in enumerate(exam.ids)}
    perfect = examine(
        exam,
        lambda rows: np.eye(4, dtype=np.float32)[[int(i) % 4 for i in range(len(rows))]],
        lambda rows: np.eye(4, dtype=np.float32)[[of[row.tobytes()] for row in rows]],
    )
    assert perfect == {"top1": 1.0}
    loose = tiny_clip.Coloured(12, classes=(), templates=("{}",))
    exam = prepare(loose, reader)
    images = np.eye(4, dtype=np.float32)[[0, 1, 2, 2] * 3]  # white is taken for blue
    found = examine(exam, lambda _: images, lambda rows: np.eye(4, dtype=np.float32)[: len(rows)])
    assert found["i2t_r1"] == 0.75
    assert found["t2i_r1"] == 0.75
    assert found["i2t_r5"] == 1.0
    with pytest.raises(FormatError, match="without captions"):
        prepare(tiny_clip.Coloured(12, half=True, classes=()), reader)


def test_exams_give_the_numbers_of_eval(tmp_path: Path) -> None:
    """Several captions a picture, some of them of several pictures."""
    plain = recipe("clip-q-all", calibrate=None, distil=None, train=None)
    pipeline.quantize(opened(tmp_path), tmp_path / "out", plain)
    lines = ["image,caption"]
    for index, pixels in enumerate(tiny_clip.Coloured(12).pixels):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        told = (list(tiny_clip.COLOURS)[index % 4], "the photo", "a of " * (index + 1))
        lines += [f"{index}.png,{word}" for word in told]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    exam = prepare(captioned(str(tmp_path / "pairs.csv")), opened(tmp_path).reader())
    found = examined(tmp_path / "out", "out", [exam]).scores[exam.name]
    said = measure(Embedder.open(tmp_path / "out"), open_set(str(tmp_path / "pairs.csv"))).metrics
    ways = {"i2t": "image_to_text", "t2i": "text_to_image"}
    assert found == {f"{way}_r{k}": said[f"{name}_r{k}"] for k in (1, 5) for way, name in ways.items()}
    assert 0 < found["i2t_r1"] < 1


def test_an_exam_that_cannot_be_sat_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "gather", None)
    blank = tiny_clip.Coloured(12, half=True, classes=())
    with pytest.raises(FormatError, match="without captions"):
        pipeline.quantize(
            opened(tmp_path), tmp_path / "out", recipe("clip-q-all"), [tiny_clip.Coloured(16)], examined_on=[blank]
        )


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = opened(tmp_path).reader()
    (tmp_path / "pairs.csv").write_text("image,caption\ngood.png,red\nbad.png,green\n")
    Image.fromarray(tiny_clip.Coloured(1).pixels[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG no more")
    data = gather([captioned(str(tmp_path / "pairs.csv"))], reader, 10, 0)
    assert len(data.rows) == 5
    assert len(set(data.rows[:, 0])) == 1
    assert "1 of 2 pictures cannot be read" in caplog.text
    (tmp_path / "good.png").write_bytes(b"")
    with pytest.raises(TercetError, match="no picture with a caption could be read"):
        gather([captioned(str(tmp_path / "pairs.csv"))], reader, 10, 0)


def test_only_equal_captions_join_pictures(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,red\na.png,green\nb.png,red\nb.png,blue\n")
    found = captioned(str(tmp_path / "pairs.csv"))
    assert list(found.groups) == [0, 1]


def test_other_weights_are_another_origin(tmp_path: Path) -> None:
    """What is cached goes by it: a model that was changed in its folder must not meet what the old one left."""
    before = opened(tmp_path)
    path = tmp_path / "clip" / "model.safetensors"
    changed = {name: np.asarray(value + 1) for name, value in safetensors.numpy.load_file(path).items()}
    safetensors.numpy.save_file(changed, path, {"format": "pt"})
    after = ClipModel.open(sources.resolve(str(tmp_path / "clip")))
    data = gather([tiny_clip.Coloured(8)], before.reader(), 8, 0)
    names = {run_name(model.source.origin, recipe("clip-q-all"), data) for model in (before, after)}
    assert len(names) == 2


def test_the_control_trains_every_weight_of_the_original(tmp_path: Path) -> None:
    model = opened(tmp_path)
    data = gather([tiny_clip.Coloured(32)], model.reader(), 64, 0)
    found = train_on(model.towers, model.tensors, recipe("clip-q-all"), data, tmp_path / "run")
    still = {name for name in found if np.array_equal(found[name], model.tensors[name])}
    keys = {name for name in found if name.endswith("k_proj.bias")}  # the same for all keys: softmax does not see it
    assert still <= {*keys, model.towers.scale}


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
    assert set(result["rows"][0]["scores"]) == {"classes"}
    assert result["rows"][1]["ternary_share"] > 0.5
    assert "| original |" in (tmp_path / "out" / "README.md").read_text()
    text = tercet("quantize", place, "-o", tmp_path / "out", *options, tmp_path / "more.txt", *examined)
    assert "classes top1" in text.stdout
    refused = tercet("quantize", place, "-o", tmp_path / "out", "--recipe", "clip-q-all", "--pictures", tmp_path / "no")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("tercet: ")


def test_options_of_language_models_are_not_swallowed(tmp_path: Path) -> None:
    place = tiny_clip.folder(tmp_path / "clip")
    for option in ("--text", "--tokens", "--seed", "--eval-tokens"):
        refused = tercet("quantize", place, "-o", tmp_path / "out", "--recipe", "clip-q-all", option, "7")
        assert refused.exit_code == 1
        assert f"does not read {option}" in refused.stderr
