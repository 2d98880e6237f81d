"""The encoder against transformers' float32, from a folder and back; what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_packed
import tiny_towers as tiny
from tercet import artifact, families
from tercet.errors import EngineError, ModelError
from tercet.program import Op, Program
from tercet.runtime.pictures import encoder as towers_module
from tercet.runtime.pictures.encoder import Encoder

GELU = {"hidden_act": "gelu"}


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("parts", [{}, {"text": GELU, "vision": GELU}], ids=["as it is", "gelu"])
@pytest.mark.parametrize("length", [tiny.TEXT["max_position_embeddings"], 5])
def test_float_embeddings_are_those_of_transformers(family: str, parts: dict[str, Any], length: int) -> None:
    made, config, tensors = tiny.model(family, **parts)
    towers = families.model(config)
    encoder = Encoder(towers, tensors, activations="float32")
    pixels, ids = tiny.pixels(size=towers.pixels.size), tiny.texts(length=length)
    image, text, logits = tiny.reference(made, pixels, ids)
    ours = encoder.encode_pixels(pixels), encoder.encode_ids(ids)
    for got, wanted in zip(ours, (image, text), strict=True):
        assert np.abs(got - wanted).max() / np.abs(wanted).max() < 1e-4
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in ours]
    assert np.abs(encoder.logit_scale * units[0] @ units[1].T + encoder.logit_bias - logits).max() < 1e-2


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_folder_gives_what_its_tensors_give(family: str, tmp_path: Path) -> None:
    towers, tensors, config = tiny_packed.towers(family)
    parts: dict[str, Any] = {"tokenizer_files": {}, "recipe": {}, "card": "", "generation": {}, "source": {}}
    artifact.save(tmp_path / "m", model=config, tensors=tensors, calibration={}, **parts)
    encoder = Encoder.open(tmp_path / "m", check=True)
    assert (encoder.dim, encoder.context) == (towers.image.widths["embedding"], towers.text.context)
    assert encoder.image_size == (towers.pixels.size, towers.pixels.size)
    assert encoder.logit_scale == pytest.approx(float(np.exp(tensors[towers.scale][0])))
    direct, pixels, ids = Encoder(towers, tensors), tiny.pixels(size=towers.pixels.size), tiny.texts()
    assert np.array_equal(encoder.encode_pixels(pixels), direct.encode_pixels(pixels))
    assert np.array_equal(encoder.encode_ids(ids), direct.encode_ids(ids))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    towers, tensors, _ = tiny_packed.towers()
    return Encoder(towers, tensors, threads=2)


def test_nothing_gives_nothing(encoder: Encoder) -> None:
    assert encoder.encode_pixels(tiny.pixels(0)).shape == (0, encoder.dim)
    assert encoder.encode_ids(np.zeros((0, 4), np.int64)).shape == (0, encoder.dim)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 28, 28), np.float32),
        np.zeros((1, 3, 28, 27), np.float32),
        np.zeros((1, 1, 28, 28), np.float32),
        np.zeros((1, 3, 28, 28), np.uint8),
        np.full((2, 3, 28, 28), np.nan, np.float32),
        np.full((2, 3, 28, 28), np.inf, np.float32),
    ],
    ids=["one", "height", "channels", "bytes", "nan", "inf"],
)
def test_pixels_that_are_refused(encoder: Encoder, pixels: Any) -> None:
    with pytest.raises(EngineError):
        encoder.encode_pixels(pixels)


@pytest.mark.parametrize(
    "ids",
    [[1, 2], [[]], [[0.5]], [[-1]], [[99]], [[2**31]], [[2**40]], [[1] * 15], [["a"]]],
    ids=["flat", "empty", "float", "negative", "large", "int32", "int64", "long", "words"],
)
def test_ids_that_are_refused(encoder: Encoder, ids: Any) -> None:
    with pytest.raises(EngineError):
        encoder.encode_ids(ids)


def test_an_error_leaves_the_encoder_as_it_was(encoder: Encoder) -> None:
    before = encoder.encode_pixels(tiny.pixels())
    bad = tiny.pixels()
    bad[-1] = np.inf
    with pytest.raises(EngineError, match="not finite"):
        encoder.encode_pixels(bad)
    assert np.array_equal(encoder.encode_pixels(tiny.pixels()), before)


@pytest.mark.parametrize("change", [{"threads": 0}, {"chunk": 0}, {"isa": "z80"}, {"activations": "int4"}], ids=str)
def test_options_that_are_refused(change: dict[str, Any]) -> None:
    towers, tensors, _ = tiny_packed.towers()
    with pytest.raises(EngineError):
        Encoder(towers, tensors, **change)


@pytest.mark.parametrize("value", [np.nan, np.inf, 500.0])
def test_a_scale_that_is_none(value: float) -> None:
    towers, tensors, _ = tiny_packed.towers()
    with pytest.raises(ModelError, match="logit_scale"):
        Encoder(towers, {**tensors, "logit_scale": np.array([value], np.float32)})


def _changed(program: Program, which: str, **fields: Any) -> Program:
    """With fields of the first operation of a kind changed."""
    index = next(i for i, op in enumerate(program.ops) if op.kind == which)
    ops = list(program.ops)
    ops[index] = replace(ops[index], **fields)
    return replace(program, ops=tuple(ops))


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("prepend", {"inputs": ("y",), "output": "y"}, "before it is written"),
        ("prepend", {"weight": "missing"}, "missing is missing"),
        ("position", {"weight": "vision_model.embeddings.patch_embedding.weight"}, "width"),
        ("attention", {"inputs": ("q", "k", "patches")}, "width"),
        ("attention", {"head_dim": 0}, "heads"),
        ("attention", {"heads": 3}, "heads"),
        ("attention", {"output": "q"}, "before it is written"),
        ("attention", {"window": 3}, "window"),
        ("attention", {"inputs": ("q",)}, "an input is missing"),
        ("pick", {"output": "x"}, "one buffer"),
        ("pick", {"row": "end"}, "end of a text"),
        ("pick", {"row": "middle"}, "unknown name"),
        ("pick", {"inputs": ("nothing",)}, "before it is written"),
        ("add", {"inputs": ("x", "patches")}, "width"),
        ("pick", {"token": 3, "kind": "prepend"}, "nothing to put in front"),
        ("linear", {"inputs": ("pixels",)}, "begin with patches"),
        ("linear", {"kind": "embed"}, "width|an input is missing"),
        ("linear", {"kind": "rope"}, "another kind"),
        ("linear", {"output": "x"}, "before it is written"),
    ],
)
def test_programs_that_are_refused(kind: str, fields: dict[str, Any], message: str) -> None:
    towers, tensors, _ = tiny_packed.towers()
    with pytest.raises(EngineError, match=message):
        Encoder(tiny.with_part(towers, "image", _changed(towers.image, kind, **fields)), tensors)


def test_a_table_of_too_few_positions_is_refused() -> None:
    towers, tensors, _ = tiny_packed.towers()
    with pytest.raises(EngineError, match="positions"):
        Encoder(tiny.with_part(towers, "text", replace(towers.text, context=15)), tensors)
    with pytest.raises(EngineError, match="context"):
        Encoder(tiny.with_part(towers, "text", replace(towers.text, context=2**40)), tensors)


def test_a_sum_of_different_rows_is_refused() -> None:
    towers, tensors, _ = tiny_packed.towers()
    ops = list(towers.image.ops)
    index = next(i for i, op in enumerate(ops) if op.kind == "pick")
    ops.insert(index + 1, Op("add", ("y", "h"), "y"))
    with pytest.raises(EngineError, match="different rows"):
        Encoder(tiny.with_part(towers, "image", replace(towers.image, ops=tuple(ops))), tensors)


def test_what_has_to_be_converted_waits_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    towers, tensors, _ = tiny_packed.towers("clip", "t5")
    made: list[str] = []
    real = towers_module.native_program
    monkeypatch.setattr(towers_module, "native_program", lambda p, *rest: made.append(p.ops[0].kind) or real(p, *rest))
    encoder = Encoder(towers, tensors, threads=1)
    assert made == []
    first = encoder.encode_pixels(tiny.pixels())
    assert len(made) == 1
    assert np.array_equal(encoder.encode_pixels(tiny.pixels()), first)
    encoder.encode_ids(tiny.texts())
    assert len(made) == 2
