"""What image-text models are compared on while they are made: right from wrong, and by the rules of `tercet eval`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_clip
from tercet import sources
from tercet.data.captioned import captioned
from tercet.data.pairs import Reader
from tercet.data.sets import open_set
from tercet.errors import FormatError
from tercet.evaluate.exam import examine, examined, prepare
from tercet.evaluate.originals import open_float, original_row
from tercet.evaluate.pictures import measure
from tercet.pipeline import quantize
from tercet.recipe import Recipe
from tercet.runtime.pictures.embedder import Embedder
from tercet.sources import Source

COLOURS = list(tiny_clip.COLOURS)
PLAIN = Recipe.parse({"rules": [{"quantizer": "l2"}], "group_size": "row", "calibrate": None})


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    return sources.resolve(str(tiny_clip.folder(tmp_path / "clip")))


def test_exams_know_right_from_wrong(source: Source) -> None:
    reader = Reader.open(source)
    exam = prepare(tiny_clip.Coloured(12), reader)
    of = {row.tobytes(): index // 2 for index, row in enumerate(exam.ids)}
    perfect = examine(
        exam,
        lambda rows: np.eye(4, dtype=np.float32)[[int(i) % 4 for i in range(len(rows))]],
        lambda rows: np.eye(4, dtype=np.float32)[[of[row.tobytes()] for row in rows]],
    )
    assert perfect == {"top1": 1.0, "top5": 1.0, "mean_per_class": 1.0}
    loose = tiny_clip.Coloured(12, classes=(), templates=("{}",))
    exam = prepare(loose, reader)
    images = np.eye(4, dtype=np.float32)[[0, 1, 2, 2] * 3]  # white is taken for blue
    found = examine(exam, lambda _: images, lambda rows: np.eye(4, dtype=np.float32)[: len(rows)])
    assert found["image_to_text_r1"] == 0.75
    assert found["text_to_image_r1"] == 0.75
    assert found["image_to_text_r5"] == 1.0
    with pytest.raises(FormatError, match="without captions"):
        prepare(tiny_clip.Coloured(12, half=True, classes=()), reader)


def test_one_exam_of_pictures_with_several_captions(source: Source, tmp_path: Path) -> None:
    """Several captions a picture, some of them of several pictures: packed and original, here and by `tercet eval`."""
    lines = ["image,caption"]
    for index, pixels in enumerate(tiny_clip.Coloured(12).pixels):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        told = (COLOURS[index % 4], "the photo", "a of " * (index + 1))
        lines += [f"{index}.png,{word}" for word in told]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    found = both(source, tmp_path, tmp_path / "pairs.csv")
    assert found.keys() == {
        "recall",
        *(f"{way}_r{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)),
    }
    assert 0 < found["image_to_text_r1"] < 1


def test_one_exam_of_pictures_with_classes(source: Source, tmp_path: Path) -> None:
    for index, pixels in enumerate(tiny_clip.Coloured(22).pixels):
        place = tmp_path / "classes" / COLOURS[index % 4] / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    found = both(source, tmp_path, tmp_path / "classes")
    assert found.keys() == {"top1", "top5", "mean_per_class"}
    assert 0 < found["top1"] < 1
    assert found["top1"] != found["mean_per_class"]


def both(source: Source, tmp_path: Path, pictures: Path) -> dict[str, float]:
    """The packed model's metrics; the rows of packed model and original hold what `tercet eval` says of each."""
    folder = quantize(source, tmp_path / "out", PLAIN).folder
    exam = prepare(captioned(str(pictures), "test"), Reader.open(source), "the exam")
    rows = original_row(source, [exam]), examined(folder, "out", [exam])
    for row, clip in zip(rows, (open_float(source), Embedder.open(folder)), strict=True):
        said = measure(clip, open_set(str(pictures))).metrics
        assert row.scores == {f"the exam {name}": value for name, value in said.items()}
    return said
