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
import tiny_towers
from fake_clip import paint
from tercet.errors import ModelError
from tercet.pipeline.pictures import open_towers
from tercet.runtime.clip import Clip
from tercet.runtime.labels import Labels
from tercet.runtime.pictures import Preprocessor

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
    clip = open_towers(folder)
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


def test_pictures_of_another_size_are_refused() -> None:
    config = {**fake_clip.PREPROCESSOR, "crop_size": {"height": 8, "width": 8}}
    labels = Labels(fake_clip.tokenizer(), {"pad_token": "<end>"}, 12)
    with pytest.raises(ModelError, match=r"prepared as \(8, 8\) pixels"):
        Clip(fake_clip.Colours(), Preprocessor.from_config(config), labels, "m", "f")
