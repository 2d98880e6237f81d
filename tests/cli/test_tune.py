"""`tercet tune` on a tiny model: it learns the text, stays ternary, and what it measured is what it packed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tercet.artifact import Artifact
from tercet.cli import app
from tercet.errors import TercetError
from tercet.packing import PackedTensor, unpack
from tercet.pipeline import Data, Watch, quantize
from tercet.pipeline.tuning import Tuning, tune
from tercet.recipe import Recipe, Rotate, Train
from tercet.tensor import TernaryTensor

SETTINGS = Train(steps=30, batch=4, context=16, lr=2e-2, scale_lr=2e-3, norm_lr=0, precision="float32")


@pytest.fixture(autouse=True)
def _no_default_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tercet.data.default_texts", lambda _split: None)


def test_it_learns_the_text_and_stays_ternary(source: Path, packed: Path, text: Path, tmp_path: Path) -> None:
    tuned = tune(str(source), packed, tmp_path / "tuned", text, Tuning(rank=4, train=SETTINGS))
    assert tuned.after < 0.8 * tuned.before
    assert abs(np.log(tuned.after / tuned.trained)) < 0.1 * np.log(tuned.before / tuned.after)
    assert tuned.flips > 0
    before, after = (Artifact.open(folder, check=True) for folder in (packed, tmp_path / "tuned"))
    assert set(before.tensors) == set(after.tensors)
    for name, old in before.tensors.items():
        new = after.tensors[name]
        assert type(new) is type(old)
        if isinstance(old, PackedTensor) and isinstance(new, PackedTensor):
            assert new.format == old.format
            if not isinstance(unpack(new), TernaryTensor):
                assert np.array_equal(new.codes, old.codes), name
        else:
            assert np.array_equal(old, new), name  # norms are frozen


@pytest.mark.parametrize("rotate", [True, "folded"])
def test_a_rotated_folder_is_tuned_in_its_own_basis(source: Path, text: Path, tmp_path: Path, rotate: Rotate) -> None:
    recipe = Recipe.parse({"rules": [{"quantizer": "learned"}], "rotate": rotate, "calibrate": {"text": str(text)}})
    quantize(str(source), tmp_path / "rotated", recipe, Data(examine=False))
    still = SETTINGS.model_copy(update={"steps": 1, "lr": 1e-9, "scale_lr": 1e-9})
    tuned = tune(str(source), tmp_path / "rotated", tmp_path / "tuned", text, Tuning(rank=4, train=still))
    assert abs(np.log(tuned.trained / tuned.before)) < 0.02
    assert abs(np.log(tuned.after / tuned.before)) < 0.02


def test_the_command_prints_what_changed(source: Path, packed: Path, text: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text(text.read_text(encoding="utf-8")[:12000], encoding="utf-8")
    arguments = ["tune", str(source), str(packed), "-o", str(tmp_path / "out"), "--text", str(short), "--steps", "1"]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert {"before", "after", "trained", "flips"} <= set(json.loads(result.stdout))


def test_a_text_too_short_and_another_source_are_refused(source: Path, packed: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Too little to learn from.", encoding="utf-8")
    with pytest.raises(TercetError, match="windows; give at least"):
        tune(str(source), packed, tmp_path / "out", short, Tuning(train=SETTINGS))
    with pytest.raises(TercetError, match="not a Tercet model folder"):
        tune(str(source), source, tmp_path / "out", short, Tuning(train=SETTINGS))
    assert not (tmp_path / "out").exists()


def test_where_it_must_not_write_is_refused_before_the_work(
    source: Path, packed: Path, text: Path, tmp_path: Path
) -> None:
    def watch(*_: object) -> None:
        pytest.fail("it has trained")

    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(TercetError, match="something else is there"):
        tune(str(source), packed, tmp_path, text, Tuning(train=SETTINGS), Watch(watch))
    with pytest.raises(TercetError, match="is the folder to tune"):
        tune(str(source), packed, packed, text, Tuning(train=SETTINGS), Watch(watch))
