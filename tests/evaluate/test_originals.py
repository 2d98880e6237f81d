"""A float model gives, through our preprocessing and tokenizer, what transformers gives through its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import fake_clip
import open_clip_model
import tiny_towers
from fake_clip import paint
from tercet.errors import ModelError
from tercet.evaluate.models import open_embedder
from tercet.evaluate.originals import open_float
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.preprocess import Preprocessor
from tercet.sources import resolve

TEXT = {"eos_token_id": 1}  # fake_clip's


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tiny_towers.save_folder(tmp_path / "model", "clip", text=TEXT)
    fake_clip.save_tokenizer(made)
    side = {"height": 28, "width": 28}
    config = {**fake_clip.PREPROCESSOR, "size": {"shortest_edge": 28}, "crop_size": side}
    (made / "preprocessor_config.json").write_text(json.dumps(config))
    return made


def test_embeddings_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    clip = open_embedder(folder)
    model, _, _ = tiny_towers.model("clip", text=TEXT)
    paths = [paint(tmp_path / f"{colour}.png", colour, size=(50, 31)) for colour in ("red", "blue", "green")]
    texts = ["a red thing", "blue", "a photo of a white thing " * 9]
    (pictures,) = clip.pictures(paths, lambda path: path)
    processor = CLIPImageProcessorPil(**json.loads((folder / "preprocessor_config.json").read_text()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<end>")
    ids = tokenizer(texts, padding="max_length", truncation=True, max_length=14, return_tensors="pt")["input_ids"]
    pixels = processor([Image.open(path) for path in paths], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(pixel_values=pixels, input_ids=ids)
    for vectors, wanted in ((pictures.vectors, output.image_embeds), (clip.texts(texts), output.text_embeds)):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(unit, wanted.numpy(), atol=1e-4)
    assert clip.encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_an_open_clip_model_prepares_pictures_as_its_packed_folder_and_open_clip_do(tmp_path: Path, mode: str) -> None:
    folder = open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())
    settings = json.loads((folder / "open_clip_config.json").read_text())
    settings["preprocess_cfg"] |= {"resize_mode": mode, "mean": [0.0] * 3, "std": [1.0] * 3}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    fake_clip.save_tokenizer(folder)
    (folder / "preprocessor_config.json").unlink()
    made, packed = open_float(resolve(str(folder))), tmp_path / "packed"
    packed.mkdir()
    for name, content in resolve(str(folder)).tokenizer_files().items():
        (packed / name).write_bytes(content)
    assert made.preprocessor == Preprocessor.open(packed)
    assert made.preprocessor.crop == (28, 28)  # the tower's: preprocess_cfg has no size
    noise = np.random.default_rng(0).integers(0, 256, (37, 63, 4)).astype(np.uint8)
    for picture in (Image.fromarray(noise[:, :, :3]), Image.fromarray(noise, "RGBA")):
        width, height = {"shortest": (47, 28), "longest": (28, 16), "squash": (28, 28)}[mode]
        small = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))
        wanted = np.zeros((28, 28, 3), np.uint8)
        top, left = (28 - height) // 2, round((width - 28) / 2)  # torchvision's: 19 / 2 is 10
        wanted[top : top + height] = small[:, left : left + 28]
        np.testing.assert_array_equal(np.round(made.preprocessor(picture) * 255), wanted.transpose(2, 0, 1))


def test_pictures_of_another_size_are_refused() -> None:
    config = {**fake_clip.PREPROCESSOR, "crop_size": {"height": 8, "width": 8}}
    labels = CaptionTokenizer(fake_clip.tokenizer(), {"pad_token": "<end>"}, 12)
    with pytest.raises(ModelError, match=r"prepared as \(8, 8\) pixels"):
        Embedder(fake_clip.Colours(), Preprocessor.from_config(config), labels, "m", "f")
