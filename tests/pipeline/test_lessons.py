"""Lessons: what each kind of model refuses to read, what they share, and what they say of the weights afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
import tiny_clip
from tercet import sources
from tercet.artifact import Artifact
from tercet.errors import RecipeError
from tercet.evaluate.rows import Row, markdown
from tercet.pipeline import Data, Report, Watch, quantize
from tercet.pipeline.lessons import lesson_for
from tercet.pipeline.lessons import pair as pair_lesson
from tercet.pipeline.lessons import text as text_lesson
from tercet.pipeline.making import making
from tercet.recipe import Recipe
from tercet.sources import Source

TRAIN: dict[str, Any] = {"steps": 2, "batch": 4, "precision": "float32"}
PAIR: dict[str, Any] = {"calibrate": {"tokens": 64}, "distil": {"kind": "clip"}, "train": TRAIN}
ROUNDED: dict[str, Any] = {"calibrate": None, "distil": None, "train": None}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tercet.data.default_texts", lambda _split: None)


@pytest.fixture
def clip(tmp_path: Path) -> Source:
    small = {"num_hidden_layers": 1}
    return sources.resolve(str(tiny_clip.folder(tmp_path / "clip", text=small, vision=small)))


@pytest.fixture
def decoder(tmp_path: Path) -> Source:
    return sources.resolve(str(tiny.save_folder(tmp_path / "decoder", num_hidden_layers=1)))


@pytest.fixture
def texts(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"{name}.txt" for name in ("first", "second")]
    for index, path in enumerate(made):
        path.write_text(" ".join(np.random.default_rng(index).choice(tiny.TEXT.split(), 600)), encoding="utf-8")
    return made


def recipe(**fields: Any) -> Recipe:
    return Recipe.parse({"name": "mine", "rules": [{"quantizer": "learned"}], "group_size": "row", **fields})


def of_texts(first: Path, second: Path, **fields: Any) -> Recipe:
    """Calibrated on one text, distilled on another."""
    calibrate = {"tokens": 256, "context": 32, "text": str(first)}
    train = {**TRAIN, "context": 16}
    return recipe(**{"calibrate": calibrate, "distil": {"text": str(second)}, "train": train, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"calibrate": {"tokens": 512, "context": 64}}, "calibrate.context is not read"),
        ({"calibrate": {"tokens": 512, "text": "generated"}}, "calibrate.text is not read"),
        ({"train": {**TRAIN, "context": 64}}, "train.context is not read"),
        ({**ROUNDED, "evaluate": {"tokens": 1024}}, "evaluate.tokens is not read"),
        ({**ROUNDED, "evaluate": {"context": 64}}, "evaluate.context is not read"),
        ({**ROUNDED, "evaluate": {"text": "some.txt"}}, "evaluate.text is not read"),
        ({"distil": {"kl": 1}}, "distils a language model, and this is an image-text model; write `kind: clip`"),
    ],
)
def test_an_image_text_model_refuses_what_it_does_not_read(fields: dict[str, Any], message: str, clip: Source) -> None:
    making(clip, recipe(**PAIR))
    with pytest.raises(RecipeError, match=f"^mine: {message}"):
        making(clip, recipe(**{**PAIR, **fields}))


def test_a_language_model_refuses_the_lesson_of_pictures(decoder: Source) -> None:
    with pytest.raises(RecipeError, match="distils an image-text model, and this is a language model; leave"):
        making(decoder, recipe(**PAIR))


@pytest.mark.parametrize("given", ["text", "eval_text"])
def test_texts_are_not_for_image_text_models(given: str, clip: Source, texts: list[Path]) -> None:
    data = Data(pictures=[tiny_clip.Coloured(8)], **{given: texts[0]})
    with pytest.raises(RecipeError, match=f"is an image-text model, which does not read {given.replace('_', '-')}"):
        lesson_for(making(clip, recipe(**PAIR)), data, None)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("pictures", [tiny_clip.Coloured(8)]),
        ("eval_pictures", ["emoji"]),
        ("captions", ["a photo"]),
        ("captions", Path("captions.txt")),
    ],
)
def test_pictures_are_not_for_language_models(given: str, value: Any, decoder: Source) -> None:
    with pytest.raises(RecipeError, match=f"is a language model, which does not read {given.replace('_', '-')}"):
        lesson_for(making(decoder, recipe(**ROUNDED)), Data(**{given: value}), None)


def test_empty_lists_are_nothing_given(clip: Source, decoder: Source) -> None:
    nothing = Data(pictures=[], captions=[], eval_pictures=[])
    for source in (clip, decoder):
        assert (
            lesson_for(making(source, recipe(**ROUNDED)), nothing, None).provenance() == "rounded, without calibration"
        )


def test_pictures_are_gathered_once_for_all_recipes(clip: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered, real, data = [], pair_lesson.gather, Data(pictures=[tiny_clip.Coloured(16)])

    def gather(*args: Any, **named: Any) -> Any:
        gathered.append(args)
        return real(*args, **named)

    monkeypatch.setattr(pair_lesson, "gather", gather)
    first = lesson_for(making(clip, recipe(**PAIR)), data, None)
    second = first.again(making(clip, recipe(**PAIR, rotate=True)))
    assert second.digest() == first.digest()
    assert len(gathered) == 1
    rounded = second.again(making(clip, recipe(**ROUNDED)))
    assert rounded.provenance() == "rounded, without calibration"  # whatever others read
    assert rounded.record() == {"text": None, "pictures": None}
    longer = first.again(making(clip, recipe(**{**PAIR, "train": {**TRAIN, "steps": 3}})))
    assert longer.digest() != first.digest()
    assert len(gathered) == 2
    assert lesson_for(making(clip, recipe(**PAIR)), data, None).digest() == first.digest()


def test_texts_are_read_once_for_all_recipes(
    decoder: Source, texts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = [], text_lesson.choose

    def choose(wanted: Any, *rest: Any) -> Any:
        read.append(wanted)
        return real(wanted, *rest)

    monkeypatch.setattr(text_lesson, "choose", choose)
    first = lesson_for(making(decoder, of_texts(*texts)), Data(), None)
    second = first.again(making(decoder, of_texts(*texts, rotate=True)))
    assert second.digest() == first.digest()
    assert second.provenance() == first.provenance()
    assert sorted(read) == sorted(map(str, texts))
    assert first.again(making(decoder, recipe(**ROUNDED))).provenance() == "rounded, without calibration"


@pytest.mark.parametrize("calibrate", [{"tokens": 64}, None])
def test_progress_says_when_pictures_are_read(calibrate: Any, clip: Source, tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    data, watch = Data(pictures=[tiny_clip.Coloured(8)], examine=False), Watch(lambda *step: said.append(step))
    quantize(clip, tmp_path / "out", recipe(**{**PAIR, "calibrate": calibrate}), data, watch=watch)
    assert ("read pictures", 8, 8) in said


def card_of(report: Report) -> list[str]:
    return (report.folder / "README.md").read_text(encoding="utf-8").splitlines()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_card_of_an_image_text_model(clip: Source, tmp_path: Path) -> None:
    data = Data(pictures=[tiny_clip.Coloured(16)], eval_pictures=[tiny_clip.Coloured(8, seed=1, name="exam")])
    lines = card_of(report := quantize(clip, tmp_path / "out", recipe(**PAIR), data))
    assert lines[:9] == [
        "# clip, quantized by Tercet",
        "",
        "Weights made with pictures and captions of colours. Recipe: mine, in full in `recipe.json`.",
        "",
        "    tercet index PICTURES -m DIR -o pictures.index",
        "    tercet verify DIR",
        "",
        f"SHA-256 of model.safetensors: `{sha256(report.folder / 'model.safetensors')}`",
        "",
    ]
    assert lines[9] == "## Compared with the original"
    assert lines[11].startswith("| model | exam top-1 | exam top-5 | exam mean per class | ternary | zeros |")
    assert [line.split(" | ")[0] for line in lines[13:15]] == ["| original", "| mine"]
    assert lines[16] == report.protocol
    config = Artifact.open(report.folder).config["calibration"]
    assert config["text"] is None
    assert config["pictures"]["name"] == "colours"
    assert config["error"].keys() == making(clip, recipe(**PAIR)).plan.keys()


@pytest.mark.parametrize(("calibrated", "distilled"), [(True, True), (True, False), (False, True), (False, False)])
def test_the_card_of_a_language_model(
    calibrated: bool, distilled: bool, decoder: Source, texts: list[Path], tmp_path: Path
) -> None:
    fields = {} if distilled else {"distil": None, "train": None}
    chosen = of_texts(*texts, **fields, **({} if calibrated else {"calibrate": None}))
    report = quantize(decoder, tmp_path / "out", chosen, Data(examine=False))
    first, second = (f"{path.name} (SHA-256 {sha256(path)})" for path in texts)
    told = f"calibrated on {first}" if calibrated else "rounded, without calibration"
    told += f", then distilled on {second}" if distilled else ""
    assert report.read == told
    assert card_of(report) == [
        "# decoder, quantized by Tercet",
        "",
        f"Weights {told}. Recipe: mine, in full in `recipe.json`.",
        "",
        "    tercet generate DIR 'Once upon a time'",
        "    tercet verify DIR",
        "",
        f"SHA-256 of model.safetensors: `{sha256(report.folder / 'model.safetensors')}`",
    ]
    record = Artifact.open(report.folder).config["calibration"]
    record.pop("error")
    origin = [{"name": path.name, "sha256": sha256(path)} for path in texts]
    assert record == {"text": origin[0] if calibrated else None, **({"distilled": origin[1]} if distilled else {})}


def test_the_card_ends_with_the_comparison(
    decoder: Source, texts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"perplexity": 12.5, "kl": 0.25, "top1_agreement": 0.5}
    rows = Row("original", "torch", 2.0, 16.0, scores), Row("mine", "engine", 0.5, 2.25, scores)
    monkeypatch.setattr(text_lesson, "compare_with_original", lambda *_: rows)
    report = quantize(decoder, tmp_path / "out", recipe(**ROUNDED), Data(eval_text=texts[0]))
    assert report.rows == rows
    assert card_of(report)[8:] == [
        "",
        "## Compared with the original",
        "",
        *markdown(rows).splitlines(),
        "",
        report.protocol,
    ]
    assert "first.txt" in report.protocol
