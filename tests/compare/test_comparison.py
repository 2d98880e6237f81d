"""The comparison of methods on a tiny model: what it measures and chooses, and that it goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import tiny
from tercet import compare as comparison
from tercet import fsio, sources
from tercet.calibrate import billm_dense, rounded
from tercet.compare import Entry, Settings, compare_methods, workshop
from tercet.compare.exam import Headline
from tercet.compare.text import TextExam
from tercet.compare.workshop import Made, Workshop
from tercet.errors import RecipeError, TercetError
from tercet.evaluate import evaluate
from tercet.packing import pack
from tercet.pipeline import Data, Watch, quantize, start, student
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.making import making
from tercet.recipe import Evaluate, Recipe

WORDS = [
    "the",
    "ternary",
    "weights",
    "of",
    "a",
    "small",
    "model",
    "are",
    "minus",
    "one",
    "rest",
    "is",
    "scale",
    "shift",
]
MEASURED = Evaluate(tokens=96, context=16)
TRAIN = {"steps": 4, "batch": 2, "context": 16, "lr": 2e-3, "scale_lr": 1e-3, "norm_lr": 4e-3, "checkpoint_every": None}
CALIBRATE = {"tokens": 256, "context": 16}


def text(split: str) -> dict[str, str]:
    return {"": " ".join(np.random.default_rng(len(split)).choice(WORDS, 600 if split == "train" else 60))}


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tercet.data.default_texts", text)
    monkeypatch.setattr(fsio, "_sync", lambda _: None)
    monkeypatch.setattr(workshop.gc, "collect", lambda: 0)  # a second each among pytest's objects


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> sources.Source:
    return sources.resolve(str(tiny.save_folder(tmp_path_factory.mktemp("source") / "tiny")))


def recipe(quantizer: Any, **fields: Any) -> Recipe:
    trained = {"distil": {}, "train": {**TRAIN, "precision": "float32"}} if fields.pop("trained", False) else {}
    return Recipe.parse(
        {"rules": [{"quantizer": quantizer}], "group_size": 32, "calibrate": None, "evaluate": MEASURED}
        | trained
        | fields
    )


ROUNDED = Entry("rounded", recipe("l2"))
TRAINED = Entry("trained", recipe("seq", trained=True, calibrate=CALIBRATE), rates=(1e-3, 4e-3), seeds=2)
BROKEN = Entry("broken, |W|", recipe("l2", group_size=128))
BILLM = Entry("billm", recipe("binary", calibrate={**CALIBRATE, "correction": 0, "residual": 0}), way="billm")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float | None, int | None]]:
    """Calls of `Workshop.make`: the quantizer, and rate and seed of training."""
    calls: list[tuple[str, float | None, int | None]] = []
    make = Workshop.make

    def spied(self: Workshop, recipe: Recipe, *, validate: bool) -> Made:
        train = recipe.train
        name = recipe.rules[0].quantizer.name if recipe.rules[0].quantizer else ""
        calls.append((name, train and train.lr, train and (train.seed if validate else None)))
        return make(self, recipe, validate=validate)

    monkeypatch.setattr(Workshop, "make", spied)
    return calls


def test_rows_are_made_measured_and_not_made_again(
    source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, out = counted(monkeypatch), tmp_path / "out"
    entries = [ROUNDED, TRAINED, BROKEN]
    told: list[str] = []
    result = compare_methods(source, entries, out, Settings(command="it"), tell=lambda each: told.append(each["name"]))
    _, trained, broken = result["rows"]
    assert [each["state"] for each in result["rows"]] == ["done", "done", "failed"]
    assert "group_size 128" in broken["error"]
    assert told == ["rounded", "trained", BROKEN.name, "trained"]
    chosen = trained["lr"]
    rates = [("seq", 1e-3, None), ("seq", 4e-3, None)]
    assert calls == [("l2", None, None), *rates, ("seq", chosen, 0), ("l2", None, None), ("seq", chosen, 1)]
    ours, theirs = (each["scores"]["perplexity"] for each in trained["runs"])
    assert trained["scores"]["perplexity"] == pytest.approx((ours + theirs) / 2)
    assert trained["spreads"]["perplexity"] == pytest.approx(abs(ours - theirs) / 2)
    assert ours != theirs
    assert [record["step"] for record in trained["runs"][0]["journal"]] == [0, 1, 2, 3, 4]
    assert [record["step"] for record in trained["runs"][0]["journal"] if "validation" in record] == [0, 3, 4]
    assert trained["cpu_seconds"] > trained["runs"][0]["start_cpu_seconds"] > 0
    assert (out / ".work").exists()  # something is missing still

    written = json.loads((out / "compare.json").read_text())
    assert written == result
    page = (out / "compare.md").read_text()
    assert sum(line.startswith("| ") for line in page.splitlines()) == 6
    assert "| 3 | broken, \\|W\\| | rounding |" in page
    pictures = ("time.png", "size.png", "iterations.png")
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)

    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    del calls[:]
    again = compare_methods(source, entries, out)
    assert calls == [("l2", None, None)]  # what failed is tried again
    assert again["rows"] == result["rows"]
    del calls[:]
    assert compare_methods(source, entries[:2], out)["rows"] == result["rows"][:2]
    assert calls == []
    assert not (out / ".work").exists()
    assert len(list((out / "rows").iterdir())) == 2


def test_a_row_says_what_eval_says(source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    file = tmp_path / "text.txt"
    file.write_text(text("test")[""])
    everything = Settings(Data(eval_text=file), eval_tokens=100_000)
    result = compare_methods(source, [ROUNDED], tmp_path / "out", everything)
    quantize(source, tmp_path / "packed", ROUNDED.recipe, Data(examine=False))
    whole = {"text": file, "context": 16, "against": str(source.folder)}
    packed, original = (evaluate(place, **whole) for place in (tmp_path / "packed", source.folder))
    found = result["rows"][0]
    for name in ("perplexity", "kl", "top1_agreement"):
        assert found["scores"][name] == pytest.approx(packed[name], rel=1e-6)
    assert found["bits_per_linear_weight"] == 2.5
    assert result["original"]["scores"]["perplexity"] == pytest.approx(original["perplexity"], rel=1e-6)
    assert found["against_original"] == pytest.approx(packed["perplexity"] / original["perplexity"], rel=1e-6)


def test_what_is_kept_in_more_bits_counts(
    source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    rules = [{"match": "model.layers.0.*", "keep": "float16"}, {"quantizer": "l2"}]
    first = compare_methods(source, [Entry("hybrid", recipe("l2", rules=rules))], tmp_path / "out")["rows"][0]
    program = source.model.text
    sizes = {name: np.prod(program.weights[name].shape) for name in program.linears}
    bits = sum(size * (16 if ".layers.0." in name else 2.5) for name, size in sizes.items()) / sum(sizes.values())
    assert first["bits_per_linear_weight"] == pytest.approx(bits)


def test_nothing_lies_below_the_front() -> None:
    points = [(2.5, 70.0), (1.7, 500.0), (2.25, 80.0), (2.25, 100.0), (2.4, 60.0), (4.0, 59.0)]
    assert front(points, Headline("perplexity", less=True)) == [(1.7, 500.0), (2.25, 80.0), (2.4, 60.0), (4.0, 59.0)]


def test_shares_have_their_front_above() -> None:
    points = [(2.5, 0.7), (1.7, 0.3), (2.25, 0.6), (2.25, 0.65), (4.0, 0.69)]
    assert np.allclose(front(points, Headline("top1", less=False)), [(1.7, 30), (2.25, 65), (2.5, 70)])


def front(points: list[tuple[float, float]], headline: Headline) -> list[tuple[float, float]]:
    rows = [(at, {"bits_per_linear_weight": x, "scores": {headline.name: y}}) for at, (x, y) in enumerate(points)]
    axes = Mock()
    comparison.plots._front(axes, rows, headline)
    return list(zip(*axes.step.call_args.args, strict=True))


def test_it_goes_on_where_it_was_stopped(
    source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(row: dict[str, Any]) -> None:
        if row["name"] == "trained":
            raise KeyboardInterrupt

    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    calls, out = counted(monkeypatch), tmp_path / "out"
    entries = [ROUNDED, TRAINED, Entry("later", recipe("absmean"))]
    with pytest.raises(KeyboardInterrupt):
        compare_methods(source, entries, out, tell=stop)
    assert "| 3 | later | rounding | - |" in (out / "compare.md").read_text()
    stopped = json.loads((out / "compare.json").read_text())
    assert [each["state"] for each in stopped["rows"]] == ["done", "not run", "not run"]
    del calls[:]
    result = compare_methods(source, entries, out)
    assert [name for name, _, _ in calls] == ["absmean", "seq"]  # its second seed
    assert result["rows"][1]["runs"][0] == stopped["rows"][1]["runs"][0]


def test_billm_counts_every_bit(source: sources.Source, tmp_path: Path) -> None:
    found = compare_methods(source, [BILLM], tmp_path / "out")["rows"][0]
    program, tensors = source.model.text, source.tensors()
    plan = BILLM.recipe.plan(source.model)
    assert BILLM.recipe.calibrate is not None
    asked = making(source, BILLM.recipe)
    cut = lesson_for(asked, Data(), 1).inputs("text", BILLM.recipe.calibrate, Watch())
    dense = billm_dense(program, tensors, plan, cut, BILLM.recipe.calibrate)
    assert found["bits_per_linear_weight"] == pytest.approx(dense.bits_per_weight)
    embedding = "model.embed_tokens.weight"
    kept = 8 * pack(rounded(tensors[embedding], plan[embedding]), "q8").nbytes
    norms = sum(32 * tensors[name].size for name, weight in program.weights.items() if weight.role == "vector")
    whole = sum(dense.bits.values()) + kept + norms
    assert found["bits_per_weight"] == pytest.approx(whole / sum(tensors[name].size for name in program.weights))
    model = source.pretrained()
    state = {name: torch.from_numpy(values) for name, values in dense.weights.items()}
    model.load_state_dict(state, strict=False)
    with torch.no_grad():
        exam = TextExam(source, Settings(), BILLM.recipe, tmp_path, lambda *_: None)
        losses = [float(model(ids[None], labels=ids[None]).loss) for ids in torch.from_numpy(exam.test)]
    assert found["scores"]["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    assert found["runs_on"] == "torch (dense, comparison only)"


def test_methods_begin_from_one_calibration_or_from_their_own_rule(
    source: sources.Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated: list[Any] = []
    starts: list[Any] = []
    calibrate, quantize_ = start.calibrate, student.quantize_

    def spied(*args: Any, **options: Any) -> Any:
        calibrated.append(args[2])
        return calibrate(*args, **options)

    def started(model: Any, configs: Any, given: Any) -> None:
        starts.append(given)
        quantize_(model, configs, given)

    monkeypatch.setattr(start, "calibrate", spied)
    monkeypatch.setattr(student, "quantize_", started)
    monkeypatch.setattr(comparison.run, "plots", lambda *_: None)
    names = ("seq", "dlt", "catq", "crulis", "lrqat", "absmean2", "learned")
    once = {"distil": {}, "train": {**TRAIN, "steps": 1}}
    entries = [Entry(name, recipe(name, calibrate=CALIBRATE, **once)) for name in names]
    result = compare_methods(source, [*entries, Entry("own", recipe("seq", **once))], tmp_path / "out")
    assert [each["error"] for each in result["rows"]] == [None] * 8
    assert len(calibrated) == 1
    *ours, own = starts
    assert own == {}
    assert len(ours[0]) == 14
    for name, tensor in ours[0].items():
        assert all(np.array_equal(tensor.codes, other[name].codes) for other in ours)
        assert all(np.array_equal(tensor.scale, other[name].scale) for other in ours)
    costs = {each["runs"][0]["start_cpu_seconds"] for each in result["rows"][:7]}
    assert len(costs) == 1  # each is charged for it


def test_what_cannot_be_compared_is_refused(source: sources.Source, tmp_path: Path) -> None:
    with pytest.raises(TercetError, match="two rows are called 'rounded'"):
        compare_methods(source, [ROUNDED, ROUNDED], tmp_path)
    with pytest.raises(TercetError, match="nothing to compare"):
        compare_methods(source, [], tmp_path)
    with pytest.raises(RecipeError, match="is a language model, which does not read validation-pictures"):
        compare_methods(source, [ROUNDED], tmp_path, Settings(validation_pictures=("emoji",)))
    with pytest.raises(RecipeError, match="is a language model, which does not read eval-pictures"):
        compare_methods(source, [ROUNDED], tmp_path, Settings(Data(eval_pictures=("emoji",))))
    assert not list(tmp_path.glob("*.json"))
