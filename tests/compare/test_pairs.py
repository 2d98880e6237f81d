"""The comparison of methods on a tiny image-text model: the same code, other scores; a control; pictures read once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny_clip
from tercet import compare as comparison
from tercet import fsio, sources
from tercet.compare import Entry, Settings, compare_methods, workshop
from tercet.compare.workshop import Made, Workshop
from tercet.data.pairs import PairData, Reader
from tercet.errors import RecipeError, TercetError
from tercet.evaluate.exam import examined, prepare
from tercet.evaluate.originals import original_row
from tercet.pipeline import Data, quantize
from tercet.pipeline.lessons import pair
from tercet.recipe import Recipe

TOP1 = "colours top1"
LEARNT = tiny_clip.Coloured(24)
TESTED = tiny_clip.Coloured(12, seed=1)
VALIDATION = tiny_clip.Coloured(8, seed=2)
SETTINGS = Settings(Data(pictures=(LEARNT,), eval_pictures=(TESTED,)), validation_pictures=(VALIDATION,), threads=1)
TRAIN = {"steps": 4, "batch": 8, "precision": "float32", "checkpoint_every": None}


def recipe(quantizer: str, **fields: Any) -> Recipe:
    base = Recipe.load("clip-q-all").model_dump(mode="json")
    base["rules"][0]["quantizer"] = {"name": quantizer}
    base["calibrate"]["tokens"] = 512
    base["train"] |= TRAIN
    return Recipe.parse({**base, "name": quantizer, **fields})


ROUNDED = Entry("rounded", recipe("l2", calibrate=None, distil=None, train=None))
OURS = Entry("ours", recipe("learned"), seeds=2)
THEIRS = Entry("theirs", recipe("seq"), rates=(1e-3, 3e-3), seeds=2)
CONTROL = Entry("control", recipe("learned"), seeds=2, way="control")


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fsio, "_sync", lambda _: None)
    monkeypatch.setattr(workshop.gc, "collect", lambda: 0)  # a second each among pytest's objects


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> sources.Source:
    return sources.resolve(str(tiny_clip.folder(tmp_path_factory.mktemp("clip") / "tiny")))


def test_methods_seeds_and_a_control_resumed_after_a_stop(
    source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int | None]] = []
    gathered: list[tuple[int, int]] = []
    make, gather = Workshop.make, pair.gather

    def spied(self: Workshop, recipe: Recipe, *, validate: bool) -> Made:
        made.append((recipe.name, recipe.train and recipe.train.seed if validate else None))
        return make(self, recipe, validate=validate)

    def read(opened: Any, reader: Any, rows: int, seed: int, **options: Any) -> PairData:
        gathered.append((rows, seed))
        return gather(opened, reader, rows, seed, **options)

    def stop(row: dict[str, Any]) -> None:
        if row["name"] == "theirs":
            raise KeyboardInterrupt

    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    monkeypatch.setattr(Workshop, "make", spied)
    monkeypatch.setattr(pair, "gather", read)
    entries, out = [ROUNDED, OURS, THEIRS, CONTROL], tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        compare_methods(source, entries, out, SETTINGS, tell=stop)
    assert made == [("l2", None), ("learned", 0), ("seq", None), ("seq", None), ("seq", 0)]
    assert sorted(gathered) == [(8, 0), (32, 0)]  # once for both full runs, once for both short ones
    stopped = json.loads((out / "compare.json").read_text())
    assert [each["state"] for each in stopped["rows"]] == ["done", "not run", "not run", "not run"]
    (out / "compare.json").unlink()  # a kill would not have written it
    (out / ".work" / "model" / "half").write_text("written")

    made.clear()
    result = compare_methods(source, entries, out, SETTINGS)
    assert made == [("learned", 1), ("seq", 1)]
    assert [(each["error"], each["state"]) for each in result["rows"]] == [(None, "done")] * 4
    rounded, ours, theirs, control = result["rows"]
    assert theirs["rates"] == stopped["rows"][2]["rates"]
    assert theirs["lr"] == max(theirs["rates"], key=lambda each: (each["validation"], each["lr"]))["lr"]
    assert ours["runs"][0] == stopped["rows"][1]["runs"][0]
    assert [each["runs_on"] for each in result["rows"]] == ["engine"] * 3 + ["torch"]
    assert rounded["ternary_share"] == ours["ternary_share"] > 0.5
    assert control["bits_per_weight"] == 32
    assert control["file_mb"] == result["original"]["file_mb"]
    losses = [[each["loss"] for each in run["journal"] if "loss" in each] for run in control["runs"]]
    assert [len(each) for each in losses] == [4, 4]
    assert losses[0] != losses[1]
    for each in (ours, control):
        values = [run["scores"][TOP1] for run in each["runs"]]
        assert each["scores"][TOP1] == pytest.approx(np.mean(values))
        assert each["spreads"][TOP1] == pytest.approx(abs(values[0] - values[1]) / 2)
        validated = [record["step"] for record in each["runs"][0]["journal"] if "validation" in record]
        assert validated == [0, 3, 4]
    assert not (out / ".work").exists()

    made.clear()
    assert compare_methods(source, entries, out, SETTINGS)["rows"] == result["rows"]
    assert made == []


def test_scores_are_those_of_the_exam_on_the_test_pictures(source: sources.Source, tmp_path: Path) -> None:
    again = tiny_clip.Coloured(10, seed=3, name="others")
    settings = Settings(Data(pictures=(LEARNT,), eval_pictures=(TESTED, again)), threads=1)
    calibrated = Entry("a | b", recipe("l2", distil=None, train=None))
    result = compare_methods(source, [calibrated], tmp_path / "out", settings)
    quantize(source, tmp_path / "packed", calibrated.recipe, Data(pictures=(LEARNT,), examine=False))
    exams = [prepare(each, Reader.open(source)) for each in (TESTED, again)]
    wanted = examined(tmp_path / "packed", "x", exams)
    found = result["rows"][0]
    mean = (wanted.scores[TOP1] + wanted.scores["others top1"]) / 2
    assert found["scores"] == {"mean": pytest.approx(mean), **wanted.scores}
    assert found["bits_per_weight"] == wanted.bits_per_weight
    assert found["zero_share"] == wanted.zero_share
    original = original_row(source, exams)
    assert {**result["original"]["scores"], "mean": 0} == {**original.scores, "mean": 0}
    assert result["headline"] == {"name": "mean", "less_is_better": False}
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "| mean | colours top-1 | others top-1 |" in page
    points = 100 * (wanted.scores[TOP1] - original.scores[TOP1])
    assert f"| {wanted.scores[TOP1]:.1%} ({points:+.1f}) |" in page
    assert "| 1 | a \\| b | calibration |" in page
    for name in ("time.png", "size.png", "iterations.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_billm_binarizes_both_towers(source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    entry = Entry("billm", recipe("binary", format="b1", distil=None, train=None), way="billm")
    found = compare_methods(source, [entry], tmp_path, SETTINGS)["rows"][0]
    assert found["error"] is None
    assert found["runs_on"] == "torch (dense, comparison only)"
    assert 2 < found["bits_per_linear_weight"] < 8
    assert set(found["scores"]) == {f"colours {name}" for name in ("top1", "top5", "mean_per_class")}


@pytest.mark.parametrize(
    ("entries", "settings", "what"),
    [
        ([ROUNDED], Settings(Data(pictures=(LEARNT,))), "no pictures to measure on"),
        ([THEIRS], Settings(SETTINGS.data), "several learning rates, and no validation pictures"),
        ([THEIRS], Settings(SETTINGS.data, validation_pictures=(TESTED,)), "would be chosen by the pictures of the"),
        ([ROUNDED], Settings(Data(eval_pictures=(TESTED, VALIDATION))), "two data sets .* have one name"),
        ([Entry("control", ROUNDED.recipe, way="control")], SETTINGS, "control: a control is trained"),
    ],
)
def test_a_comparison_without_sense_is_refused_before_the_work(
    source: sources.Source, tmp_path: Path, entries: list[Entry], settings: Settings, what: str
) -> None:
    with pytest.raises(TercetError, match=what):
        compare_methods(source, entries, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings", [Settings(SETTINGS.data, eval_tokens=64), Settings(SETTINGS.data, validation_text="default")]
)
def test_an_image_text_model_reads_no_text(source: sources.Source, tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(RecipeError, match=r"is an image-text model, which does not read (eval-tokens|validation-text)"):
        compare_methods(source, [ROUNDED], tmp_path, settings)
