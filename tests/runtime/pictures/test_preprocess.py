"""Preprocessing against transformers' own Pillow processors, and open_clip's steps written out with Pillow."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tercet.errors import FormatError
from tercet.runtime.pictures.preprocess import Preprocessor

MODES = ("RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "1", "YCbCr", "HSV", "LAB")
SMALL = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
REFERENCES = {
    "clip": CLIPImageProcessorPil(**SMALL),
    "clip, tall crop": CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 37, "width": 19}),
    "clip, nothing normalised": CLIPImageProcessorPil(**SMALL, do_normalize=False),
    "clip, bilinear, no rescaling": CLIPImageProcessorPil(**SMALL, resample=2, do_rescale=False),
    "clip, only cropped": CLIPImageProcessorPil(**SMALL, do_resize=False),
    "siglip": SiglipImageProcessorPil(size={"height": 32, "width": 40}),
}


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    made = Image.fromarray(pixels, "RGBA")
    return made.convert("RGB").convert("LAB") if mode == "LAB" else made.convert(mode)


def levels(preprocessor: Preprocessor, made: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference in 1/255 of the pixel range, before normalisation."""
    unit = np.array(preprocessor.std)[:, None, None] / (255 * preprocessor.scale)
    return float((np.abs(made - wanted) * unit).max()) * 255


@pytest.mark.parametrize("name", REFERENCES)
@given(width=st.integers(1, 130), height=st.integers(1, 130), mode=st.sampled_from(MODES), seed=st.integers(0, 2**16))
@settings(max_examples=40, deadline=None)
def test_as_transformers_computes_it(name: str, width: int, height: int, mode: str, seed: int) -> None:
    reference = REFERENCES[name]
    preprocessor = Preprocessor.from_config(json.loads(reference.to_json_string()))
    image = picture(width, height, mode, seed)
    made = preprocessor(image)
    assert made.dtype == np.float32
    wanted = reference(image, return_tensors="np")["pixel_values"][0]
    assert made.shape == wanted.shape
    np.testing.assert_array_equal(made, wanted)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = picture(20, 20, "P")
    image.info["transparency"] = 3
    image.putpixel((0, 0), 3)
    reference = REFERENCES["clip, only cropped"]
    made = Preprocessor.from_config(json.loads(reference.to_json_string()))(image)
    np.testing.assert_array_equal(made, reference(image, return_tensors="np")["pixel_values"][0])


@pytest.mark.parametrize("size", [(2, 1500), (1500, 2), (60, 45001)])
def test_a_picture_that_resizing_blows_up_is_only_made_where_it_is_kept(size: tuple[int, int]) -> None:
    """Within a level or two of white noise; the whole would take gigabytes for slightly longer pictures."""
    reference = CLIPImageProcessorPil(size={"shortest_edge": 160}, crop_size={"height": 160, "width": 130})
    preprocessor = Preprocessor.from_config(json.loads(reference.to_json_string()))
    image = picture(*size)
    wanted = reference(image, return_tensors="np")["pixel_values"][0]
    made = preprocessor(image)
    assert levels(preprocessor, made, wanted) < 2.01
    unit = np.array(preprocessor.std)[:, None, None] * 255
    assert float((np.abs(made - wanted) * unit > 0.5).mean()) < 2e-3


def test_a_line_of_a_million_pixels_takes_no_memory() -> None:
    made = Preprocessor.from_config(json.loads(CLIPImageProcessorPil().to_json_string()))(picture(1, 1_000_000))
    assert made.shape == (3, 224, 224)


def open_clip(image: Image.Image, size: int, mode: str, fill: int = 0) -> NDArray[np.float32]:
    """open_clip's evaluation transform, torchvision's formulas written out; mean 0.5, deviation 0.25."""
    width, height = image.size
    if mode == "squash":
        target = (size, size)
    elif mode == "shortest":
        long = int(size * max(width, height) / min(width, height))
        target = (size, long) if width <= height else (long, size)
    else:
        ratio = max(height / size, width / size)
        target = (max(round(width / ratio), 1), max(round(height / ratio), 1))
    pixels = np.asarray(image.resize(target, Image.Resampling.BICUBIC).convert("RGB"))
    missing = [max(size - side, 0) for side in pixels.shape[:2]]
    around = [(side // 2, (side + 1) // 2) for side in missing]
    pixels = np.pad(pixels, [*around, (0, 0)], constant_values=fill)
    top, left = (round((side - size) / 2.0) for side in pixels.shape[:2])
    kept = pixels[top : top + size, left : left + size].astype(np.float32) / 255
    return ((kept - 0.5) / 0.25).transpose(2, 0, 1)


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    fill=st.sampled_from([0, 127]),
    colours=st.sampled_from(MODES),
)
@settings(max_examples=60, deadline=None)
def test_as_open_clip_computes_it(width: int, height: int, mode: str, fill: int, colours: str) -> None:
    config = {"size": 31, "mode": "RGB", "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    preprocessor = Preprocessor.from_config({**config, "resize_mode": mode, "fill_color": fill})
    image = picture(width, height, colours if mode != "longest" else "RGB")  # which alone has margins
    wanted = open_clip(image, 31, mode, fill)
    np.testing.assert_array_equal(preprocessor(image), wanted)


def test_open_clip_drops_transparency() -> None:
    preprocessor = Preprocessor.from_config({"size": 8, "mean": [0.0] * 3, "std": [1.0] * 3})
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    np.testing.assert_array_equal(preprocessor(clear)[:, 0, 0], np.float32([1, 0, 0]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 32},
            {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
        ),
        (
            {"image_processor_type": "SiglipImageProcessor", "size": 40},
            {"image_processor_type": "SiglipImageProcessor", "size": {"height": 40, "width": 40}},
        ),
    ],
)
def test_old_spellings_mean_the_same(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert Preprocessor.from_config(old) == Preprocessor.from_config(new)


def test_defaults_are_those_of_the_classes() -> None:
    assert Preprocessor.from_config({}) == Preprocessor.from_config(
        json.loads(CLIPImageProcessorPil().to_json_string())
    )
    siglip = {"image_processor_type": "SiglipImageProcessor"}
    whole = json.loads(SiglipImageProcessorPil().to_json_string())
    assert Preprocessor.from_config(siglip) == Preprocessor.from_config(whole)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "Siglip2ImageProcessor"}, "not supported"),
        ({"image_processor_type": "BlipImageProcessor"}, "not supported"),
        ({"size": {"shortest_edge": 0}}, "size"),
        ({"size": {"shortest_edge": True}}, "size"),
        ({"size": {"height": 10**9, "width": 1}}, "size"),
        ({"size": {"longest_edge": 8}}, "size"),
        ({"crop_size": [1, 2, 3, 4]}, "crop_size"),
        ({"crop_size": None}, "crop_size"),
        ({"do_center_crop": False}, "no fixed size"),
        ({"do_resize": "yes"}, "true or false"),
        ({"resample": 17}, "resample"),
        ({"rescale_factor": math.inf}, "finite"),
        ({"image_mean": [0, 0]}, "three numbers"),
        ({"image_std": [1, 0, 1]}, "above 0"),
        ({"image_std": "1"}, "finite number"),
        ({"mean": [0.5] * 3, "resize_mode": "stretch"}, "resize_mode"),
        ({"interpolation": 3}, "interpolation"),
        ({"resize_mode": "squash", "fill_color": 300}, "fill_color"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        Preprocessor.from_config(config)


def test_a_packed_folder_says_how_pictures_are_prepared(tmp_path: Any) -> None:
    with pytest.raises(FormatError, match=r"preprocessor_config\.json: no such file"):
        Preprocessor.open(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("[]")
    with pytest.raises(FormatError, match="not a JSON object"):
        Preprocessor.open(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"crop_size": 10}))
    assert Preprocessor.open(tmp_path).crop == (10, 10)
