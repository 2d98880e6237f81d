"""`tercet compare`: its table, its JSON, its one line where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_clip
from command import result_of, tercet
from tercet.data.pairs import Captioned


@pytest.fixture
def recipes(tmp_path: Path) -> list[Path]:
    files = []
    for name, group in (("first", 32), ("second", 128)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"rules: [{{quantizer: l2}}]\ngroup_size: {group}\ncalibrate: null\n")
        files.append(file)
    return files


def test_compare_writes_one_table(source: Path, text: Path, recipes: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    texts = ("--eval-text", text, "--validation-text", text, "--eval-tokens", 64, "--threads", 1)
    result = result_of("compare", source, *recipes, "-o", out, *texts)
    first, second = result["rows"]
    assert (first["name"], first["state"], first["runs_on"]) == ("first", "done", "engine")
    assert (second["name"], second["state"]) == ("second", "failed")
    assert result["command"].startswith(f"tercet compare {source} {recipes[0]}")
    assert "64 tokens" in result["protocol"]
    assert json.loads((out / "compare.json").read_text()) == result
    shown = tercet("compare", source, recipes[0], "-o", out, *texts)
    assert shown.exit_code == 0, shown.stderr
    assert "first" in shown.stdout
    assert f"{first['bits_per_linear_weight']:.2f}" in shown.stdout


def test_what_is_called_twice_is_refused(source: Path, text: Path, recipes: list[Path], tmp_path: Path) -> None:
    result = tercet("compare", source, recipes[0], recipes[0], "-o", tmp_path / "out", "--eval-text", text)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == ["tercet: two rows are called 'first'; name them apart"]
    assert not (tmp_path / "out").exists()


def test_pictures_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(_: str, split: str) -> Captioned:
        return tiny_clip.Coloured(8, seed=["train", "validation", "test"].index(split))

    monkeypatch.setattr("tercet.compare.pair.captioned", opened)
    source, out = tiny_clip.folder(tmp_path / "clip"), tmp_path / "out"
    recipe = tmp_path / "rounded.yaml"
    recipe.write_text("rules: [{quantizer: l2}, {keep: int8}]\ngroup_size: row\ncalibrate: null\n")
    pictures = ("--pictures", "a", "--eval-pictures", "a", "--validation-pictures", "a", "--threads", 1)
    result = result_of("compare", source, recipe, "-o", out, *pictures)
    assert (result["rows"][0]["error"], result["rows"][0]["state"]) == (None, "done")
    assert result["headline"] == {"name": "colours top1", "less_is_better": False}
    assert result["command"].endswith("--pictures a --eval-pictures a --validation-pictures a --threads 1")
    refused = tercet("compare", source, recipe, "-o", tmp_path / "no", *pictures, "--eval-tokens", 64)
    assert refused.exit_code == 1
    assert "does not read eval-tokens" in refused.stderr
    assert not (tmp_path / "no").exists()
