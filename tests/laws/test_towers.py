"""Law 3 for towers: an embedding is the same bits, whatever computes it and in whatever company."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_packed
import tiny_towers as tiny
from tercet import kernels
from tercet.program import interpreter
from tercet.program.patches import patches
from tercet.runtime.pictures.encoder import Encoder

FORMATS = ["t2", "t19", "t5", "b1", "q8", "q4", "f16", "f32"]
PICTURES, TEXTS = 5, 7


@functools.cache
def _model(family: str, linear: str = "t2") -> tuple[Any, Any, Any]:
    return tiny_packed.towers(family, linear)


def _encoder(family: str = "clip", linear: str = "t2", **options: Any) -> Encoder:
    made, tensors, _ = _model(family, linear)
    return Encoder(made, tensors, **{"threads": 1, **options})


def _encoded(encoder: Encoder) -> NDArray[np.float32]:
    pixels = tiny.pixels(PICTURES, size=encoder.image_size[0])
    return np.concatenate([encoder.encode_pixels(pixels), encoder.encode_ids(tiny.texts(TEXTS, encoder.context))])


@functools.cache
def _expected(family: str = "clip", linear: str = "t2") -> NDArray[np.float32]:
    return _encoded(_encoder(family, linear, isa="scalar"))


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_same_on_every_instruction_set(family: str, isa: str) -> None:
    assert np.array_equal(_encoded(_encoder(family, isa=isa)), _expected(family))


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("linear", FORMATS)
def test_same_for_every_format(linear: str, isa: str) -> None:
    assert np.array_equal(_encoded(_encoder("clip", linear, isa=isa)), _expected("clip", linear))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 40, 1000])
def test_same_for_threads_and_chunks(family: str, threads: int, chunk: int) -> None:
    assert np.array_equal(_encoded(_encoder(family, threads=threads, chunk=chunk)), _expected(family))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("threads", [1, 2])
def test_same_in_every_company(family: str, threads: int) -> None:
    encoder, expected = _encoder(family, threads=threads), _expected(family)
    pixels, ids = tiny.pixels(PICTURES, size=encoder.image_size[0]), tiny.texts(TEXTS, encoder.context)
    for i in range(PICTURES):
        assert np.array_equal(encoder.encode_pixels(pixels[i : i + 1])[0], expected[i])
    for i in range(TEXTS):
        assert np.array_equal(encoder.encode_ids(ids[i : i + 1])[0], expected[PICTURES + i])
    assert np.array_equal(encoder.encode_ids(ids[::-1]), expected[: PICTURES - 1 : -1])


@pytest.mark.parametrize("form", ["t19", "t5"])
def test_the_other_ternary_formats_give_the_bits_of_t2(form: str) -> None:
    assert np.array_equal(_encoded(_encoder("clip", form)), _expected("clip", "t2"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("linear", ["t2", "b1", "f16"])
def test_float_mode_is_the_reference(family: str, linear: str) -> None:
    made, tensors, _ = _model(family, linear)
    encoder, floats = _encoder(family, linear, activations="float32"), tiny_packed.floats(tensors)
    pixels = patches(tiny.pixels(PICTURES, size=made.pixels.size), made.pixels.patch)
    pictures = interpreter.embeddings(made.image, floats, pixels)
    texts = interpreter.embeddings(made.text, floats, tiny.texts(TEXTS, encoder.context))
    expected = np.concatenate([pictures, texts])
    assert np.abs(_encoded(encoder) - expected).max() / np.abs(expected).max() < 1e-5
    assert expected.std() > 0.1  # else the comparison says nothing


def test_int8_activations_differ_from_float_ones_but_not_by_much() -> None:
    exact = _encoded(_encoder(activations="float32"))
    error = np.abs(_expected() - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 0.1
