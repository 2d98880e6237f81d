"""eval --dataset, embed, index and search on a model whose answers can be foreseen."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import fake_clip
import hostile_pictures
from command import result_of, tercet
from fake_clip import COLOURS, paint
from tercet import fsio
from tercet.runtime.pictures.embedder import Embedder, normalized


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are models: "blind" sees nothing but grey."""

    class Blind(fake_clip.Colours):
        def encode_pixels(self, pixels: np.ndarray) -> np.ndarray:
            return super().encode_pixels(np.zeros_like(pixels))

    def opened(name: str | Path, **_: object) -> Embedder:
        made = fake_clip.clip(str(name))
        return Embedder(Blind(), made.preprocessor, made.captions, "blind", "blind") if str(name) == "blind" else made

    for place in ("models", "measure"):
        monkeypatch.setattr(f"tercet.evaluate.{place}.open_embedder", opened)
    monkeypatch.setattr("tercet.search.commands.PACKAGED", ("colours",))


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for split, seeds in (("test", (0, 1, 2)), ("train", (3, 4))):
        for colour in COLOURS:
            for seed in seeds:
                paint(tmp_path / "gallery" / split / colour / f"{seed}.png", colour, seed)
    return tmp_path / "gallery"


def test_eval_classifies_beside_the_original(gallery: Path, tmp_path: Path) -> None:
    (gallery / "test" / "red" / "bad.png").write_bytes(b"no")
    options = ("--dataset", gallery, "--original", "blind", "--linear-probe", "--plot", tmp_path / "bars.png")
    result = result_of("eval", "colours", *options)
    (dataset,) = result["datasets"]
    assert (dataset["name"], dataset["task"], dataset["metric"]) == ("gallery", "classification", "top1")
    assert (dataset["pictures"], dataset["refused"], dataset["classes"]) == (18, 1, 6)
    assert dataset["refusals"][0]["picture"] == "red/bad.png"
    model, original = dataset["models"]["model"], dataset["models"]["original"]
    assert model == {"top1": 1, "top5": 1, "mean_per_class": 1, "linear_probe": 1}
    assert original["top1"] == pytest.approx(1 / 6)
    difference = dataset["difference"]["top1"]
    assert difference["value"] == pytest.approx(5 / 6)
    assert 0 < difference["low"] < difference["value"] <= difference["high"]
    assert dataset["difference"].keys() == model.keys()  # an interval for each
    assert (dataset["learned"], dataset["unlearned"]) == (12, 0)
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_differences_are_those_of_the_metrics(gallery: Path) -> None:
    for seed in (1, 2):
        (gallery / "test" / "red" / f"{seed}.png").unlink()  # else each picture would weigh what its class does
    (dataset,) = result_of("eval", "colours", "--dataset", gallery, "--original", "blind")["datasets"]
    model, original = dataset["models"]["model"], dataset["models"]["original"]
    assert original["top1"] != original["mean_per_class"]
    found = {name: difference["value"] for name, difference in dataset["difference"].items()}
    assert found == pytest.approx({name: model[name] - original[name] for name in model})


def test_a_limit_is_of_the_training_pictures_too(gallery: Path) -> None:
    (gallery / "train" / "red" / "0.png").write_bytes(b"no")
    result = result_of("eval", "colours", "--dataset", gallery, "--linear-probe", "--limit", 12)
    (dataset,) = result["datasets"]
    assert (dataset["pictures"], dataset["refused"]) == (12, 0)
    assert (dataset["learned"], dataset["unlearned"]) == (11, 1)  # two of each class
    shown = tercet("eval", "colours", "--dataset", gallery, "--linear-probe", "--limit", 6).stdout
    assert "6 pictures; the probe learned from 5, 1 refused" in shown


def test_training_pictures_of_other_classes_are_refused(gallery: Path) -> None:
    paint(gallery / "train" / "brown" / "0.png", "red")
    refused = tercet("eval", "colours", "--dataset", gallery, "--linear-probe")
    assert "'brown': the test pictures have no such class" in refused.stderr
    assert result_of("eval", "colours", "--dataset", gallery)["datasets"][0]["learned"] is None


def test_what_a_plot_needs_is_checked_first(gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr("tercet.evaluate.measure.measure", lambda *_, **__: pytest.fail("measured"))
    for name, message in {
        "file/bars.png": "file is no folder",
        "folder.png": "a folder is there",
        "bars.svg": "ends in .png",
    }.items():
        place = tmp_path / name
        refused = tercet("eval", "colours", "--dataset", gallery, "--plot", place)
        assert refused.exit_code == 1
        assert message in refused.stderr
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    refused = tercet("eval", "colours", "--dataset", gallery, "--plot", tmp_path / "new" / "bars.png")
    assert "tercet[report]" in refused.stderr


def test_results_are_printed_where_the_plot_fails(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tercet.evaluate.measure.bars", full)
    arguments = ("eval", "colours", "--dataset", gallery, "--limit", 3, "--plot", tmp_path / "bars.png")
    shown = tercet(*arguments)
    assert shown.exit_code == 1
    assert "top-5" in shown.stdout
    assert "wrote" not in shown.stdout
    assert "No space left" in shown.stderr
    result = tercet(*arguments, "--json")
    assert json.loads(result.stdout)["plot"] is None


def test_eval_retrieves(gallery: Path) -> None:
    rows = [f"test/{colour}/0.png,a {colour} thing\ntest/{colour}/0.png,{colour}" for colour in COLOURS]
    (gallery / "captions.csv").write_text("\n".join(["image,caption", *rows]))
    result = result_of("eval", "colours", "--dataset", gallery / "captions.csv", "--dataset", gallery)
    first, second = result["datasets"]
    ways = {"text_to_image": 12, "image_to_text": 6}
    assert first["queries"] == {"recall": 18, **{f"{way}_r{k}": n for way, n in ways.items() for k in (1, 5, 10)}}
    assert {name: value for name, value in first["models"]["model"].items() if value < 1} == {}
    assert result["mean"] == {"model": 1}
    assert first["difference"] is None
    assert second["name"] == "gallery"
    shown = tercet("eval", "colours", "--dataset", gallery / "captions.csv", "--dataset", gallery, "--limit", 3).stdout
    assert "text to image R@10" in shown
    assert "top-5" in shown
    assert "mean R@1 *" in shown
    assert "top-1 *" in shown
    beside = result_of("eval", "colours", "--dataset", gallery / "captions.csv", "--original", "blind")["datasets"][0]
    assert beside["difference"].keys() == beside["models"]["model"].keys()
    recall = beside["difference"]["recall"]
    assert recall["value"] == pytest.approx(
        beside["models"]["model"]["recall"] - beside["models"]["original"]["recall"]
    )
    assert 0 < recall["low"] < recall["value"] <= recall["high"] <= 1


def test_several_classes_a_picture(gallery: Path) -> None:
    lines = [f"test/{colour}/0.png,{colour}" for colour in COLOURS]
    (gallery / "several.csv").write_text("\n".join(["image,label", *lines, "test/red/0.png,blue"]))
    result = result_of("eval", "colours", "--dataset", gallery / "several.csv")
    metrics = result["datasets"][0]["models"]["model"]
    assert metrics.keys() == {"mean_average_precision"}
    assert 0.8 < metrics["mean_average_precision"] < 1


def test_embed_pictures_and_texts(gallery: Path, tmp_path: Path) -> None:
    (gallery / "bad.png").write_bytes(b"no")
    result = result_of("embed", "colours", gallery, "-o", tmp_path / "v.npy", "--batch", 4)
    assert (result["rows"], result["dim"], len(result["refused"])) == (30, 13, 1)
    names = [json.loads(line) for line in (tmp_path / "v.npy.names.jsonl").read_text().splitlines()]
    vectors = np.load(tmp_path / "v.npy")
    clip = fake_clip.clip()
    (one,) = clip.pictures([gallery / names[7]], lambda path: path)
    np.testing.assert_array_equal(vectors[7], one.vectors[0])
    (tmp_path / "t.txt").write_text("a red thing\n\nblue\n")
    result_of("embed", "colours", tmp_path / "t.txt", "-o", tmp_path / "t.npy", "--normalize")
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), normalized(clip.texts(["a red thing", "blue"])))


def test_embed_writes_parquet(gallery: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    result_of("embed", "colours", gallery / "train", "-o", tmp_path / "v.parquet")
    result_of("embed", "colours", gallery / "train", "-o", tmp_path / "v.npy")
    made = parquet.read_table(tmp_path / "v.parquet").to_pydict()
    np.testing.assert_array_equal(np.array(made["embedding"], np.float32), np.load(tmp_path / "v.npy"))
    assert made["name"][0] == "black/3.png"


def test_an_embed_that_fails_leaves_no_names_beside_vectors_of_others(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, names = tmp_path / "v.npy", tmp_path / "v.npy.names.jsonl"
    result_of("embed", "colours", gallery / "train", "-o", out)
    before = out.read_bytes(), names.read_bytes()
    full, written = fsio._write, []

    def no_room_for_the_second(descriptor: int, data: object) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(full(descriptor, data))

    monkeypatch.setattr(fsio, "_write", no_room_for_the_second)
    refused = tercet("embed", "colours", gallery, "-o", out)
    assert refused.exit_code == 1
    assert "No space left" in refused.stderr
    assert (out.read_bytes(), names.read_bytes()) == before


def test_where_embed_and_search_may_not_write_is_said_before_the_work(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_of("index", gallery / "train", "-m", "colours", "-o", tmp_path / "index")
    monkeypatch.setattr("tercet.evaluate.models.open_embedder", lambda *_, **__: pytest.fail("opened the model"))
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "w.npy.names.jsonl").mkdir()
    for arguments in (
        ("embed", "colours", gallery, "-o", tmp_path / "pipe.npy"),
        ("embed", "colours", gallery, "-o", tmp_path / "w.npy"),
        ("search", tmp_path / "index", "red", "--html", tmp_path / "pipe.npy"),
    ):
        refused = tercet(*arguments)
        assert refused.exit_code == 1
        assert "choose another name" in refused.stderr
    assert (tmp_path / "pipe.npy").is_fifo()


def test_names_that_are_no_unicode_are_kept_apart_in_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in (b"a\xe8.png", b"a\xe9.png"):
        paint(tmp_path / "pictures" / os.fsdecode(name), "red")
    result_of("embed", "colours", tmp_path / "pictures", "-o", tmp_path / "v.parquet")
    assert parquet.read_table(tmp_path / "v.parquet").to_pydict()["name"] == ["a\\udce8.png", "a\\udce9.png"]


def test_index_and_search(gallery: Path, tmp_path: Path) -> None:
    place, page = tmp_path / "index", tmp_path / "found.html"
    assert result_of("index", gallery / "test", "-m", "colours", "-o", place)["added"] == 18
    assert result_of("index", gallery / "test", "-m", "colours", "-o", place)["kept"] == 18
    result = result_of("search", place, "a red thing", "-k", 3, "--html", page)
    assert result["kind"] == "text"
    assert {hit["path"].split("/")[0] for hit in result["hits"]} == {"red"}
    assert page.read_text().count("<figure>") == 3
    by_picture = result_of("search", place, gallery / "train" / "blue" / "3.png", "-k", 3, "-m", "colours")
    assert by_picture["kind"] == "picture"
    assert {hit["path"].split("/")[0] for hit in by_picture["hits"]} == {"blue"}
    assert "red/0.png" in tercet("search", place, "red").stdout
    assert "no such picture" in tercet("search", place, "missing.JPG").stderr


def test_an_index_does_not_make_us_download_a_model(gallery: Path, tmp_path: Path) -> None:
    place = tmp_path / "index"
    result_of("index", gallery / "train", "-m", "nobody/some-repo", "-o", place)
    refused = tercet("search", place, "red")
    assert refused.exit_code == 1
    assert "made by nobody/some-repo, which is no folder here; name the model with -m" in refused.stderr


def test_pictures_that_are_left_out_are_named(gallery: Path, tmp_path: Path) -> None:
    (gallery / "train" / "red" / "a.heic").write_bytes(b"x")
    assert "1 .heic left out" in tercet("index", gallery / "train", "-m", "colours", "-o", tmp_path / "i").stdout
    assert result_of("embed", "colours", gallery / "train", "-o", tmp_path / "v.npy")["left_out"] == {".heic": 1}
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.avif").write_bytes(b"x")
    assert "1 .avif left out" in tercet("embed", "colours", tmp_path / "only", "-o", tmp_path / "w.npy").stderr


def test_a_limit_is_shared_out_among_the_classes(gallery: Path) -> None:
    (dataset,) = result_of("eval", "colours", "--dataset", gallery, "--limit", 6)["datasets"]
    assert dataset["pictures"] == 6
    assert result_of("eval", "blind", "--dataset", gallery, "--limit", 6)["datasets"][0]["models"]["model"][
        "top1"
    ] == pytest.approx(1 / 6)


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    paint(tmp_path / "in" / "[red]a[/red]\x1b[31m\n.png", "red")
    result_of("index", tmp_path / "in", "-m", "colours", "-o", tmp_path / "index")
    shown = tercet("search", tmp_path / "index", "red").stdout
    assert "[red]a[/red]?[31m?.png" in shown


def test_a_folder_with_hostile_files_ends_well(tmp_path: Path) -> None:
    names = hostile_pictures.write(tmp_path / "in")
    paint(tmp_path / "in" / "good.png", "green")
    shown = tercet("index", tmp_path / "in", "-m", "colours", "-o", tmp_path / "index")
    assert shown.exit_code == 0
    assert "1 pictures" in shown.stdout
    assert f"{len(names)} refused" in shown.stdout
    assert all(name in shown.stdout for name in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("eval", "colours", "--dataset", "nowhere"), "no name of a dataset"),
        (("eval", "colours", "--dataset", "mnist"), "hf download"),
        (("embed", "colours", "nowhere.txt", "-o", "v.npy"), "no folder, and no file"),
        (("embed", "colours", ".", "-o", "v.csv"), ".npy or .parquet"),
        (("index", "nowhere", "-m", "colours", "-o", "index"), "no such folder"),
        (("search", "nowhere", "red"), "no index"),
    ],
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tercet(*arguments)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("tercet: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_texts_and_datasets_do_not_mix(gallery: Path) -> None:
    assert tercet("eval", "colours", "--dataset", gallery, "--text", __file__).exit_code == 2
