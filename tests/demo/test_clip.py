"""The demo of pictures on a tiny model and coloured squares: its keys, its files, and that it goes on."""

from pathlib import Path
from typing import Any

import pytest

import tiny_clip
from tercet.artifact import Artifact
from tercet.data.pairs import PairData
from tercet.demo.clip import Shown, demo_clip
from tercet.pipeline.lessons import pair
from tercet.recipe import Recipe

ONE = {"num_hidden_layers": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))


def short(name: str) -> Recipe:
    fields = Recipe.load(name).model_dump(mode="json")
    fields["train"] |= {"steps": 3, "batch": 8, "precision": "float32"}
    fields["calibrate"] |= {"tokens": 256}
    return Recipe.parse(fields)


def test_table_grid_and_a_second_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    gathered, gather = [], pair.gather

    def counted(*args: Any, **named: Any) -> PairData:
        gathered.append(gather(*args, **named))
        return gathered[-1]

    def run() -> dict[str, Any]:
        shown = Shown(
            source=str(tiny_clip.folder(tmp_path / "clip", text=ONE, vision=ONE)),
            pictures=[tiny_clip.Coloured(24)],
            tested=[tiny_clip.Coloured(12, seed=1)],
            recipes={"q_ffn": short("clip-q-ffn"), "q_all": short("clip-q-all")},
            searched={"colours": ("a photo of the red", "blue")},
        )
        return demo_clip(tmp_path / "out", shown=shown, threads=1)

    monkeypatch.setattr(pair, "gather", counted)
    result = run()
    assert len(gathered) == 1  # the control and all models learn from the same pictures
    for name in ("q_ffn", "q_all"):
        read = Artifact.open(tmp_path / "out" / "models" / name).config["calibration"]["pictures"]
        assert read == {"name": "colours", "sha256": gathered[0].digest}
    assert {"float", "q_ffn", "q_all", "rounded"} <= result.keys()
    for name in ("float", "q_ffn", "q_all"):
        assert set(result[name]) == {"zeroshot_top1", "ternary_share", "zero_share", "file_mb"}
    assert result["float"]["ternary_share"] == 0
    assert 0 < result["q_ffn"]["ternary_share"] < result["q_all"]["ternary_share"] < 1
    assert result["q_all"]["file_mb"] < result["float"]["file_mb"]
    assert [row["name"] for row in result["rows"]] == ["original", "original, trained on", "rounded", "q_ffn", "q_all"]
    with Image.open(result["search"]) as picture:
        assert picture.size[1] > 2 * 72
    again = run()
    assert not again["seconds_to_make"]
    assert again["rows"] == result["rows"]
