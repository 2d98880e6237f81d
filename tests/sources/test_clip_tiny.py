"""The checkpoint that is part of the package: it opens in transformers, and it knows what it was taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from tercet.data.pictures import Pictures, scenes
from tercet.sources import resolve

CONTEXT = 32


def resized(pictures: Pictures) -> torch.Tensor:
    """As its preprocessor_config.json says: 32 by 32, bicubic, -1..1."""
    small = [np.asarray(Image.fromarray(p).resize((32, 32), Image.Resampling.BICUBIC)) for p in pictures.pixels]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def found(folder: Path, pictures: Pictures) -> float:
    """The share of pictures whose caption is the nearest of all different ones."""
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    groups, first, inverse = np.unique(pictures.groups, return_index=True, return_inverse=True)
    captions = [pictures.captions[index][0] for index in first]
    ids = tokenizer(captions, padding="max_length", max_length=CONTEXT, return_tensors="pt").input_ids
    texts = normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output), dim=-1)
    images = model.visual_projection(model.vision_model(pixel_values=resized(pictures)).pooler_output)
    assert len(groups) > 100
    return float(((images @ texts.T).argmax(1).numpy() == inverse).mean())


def test_scenes_find_their_captions() -> None:
    source = resolve("clip-tiny")
    assert found(source.folder, scenes.pictures("test", 300)) > 0.5
    assert found(source.folder, scenes.pictures("unseen", 300)) > 0.35


def test_the_folder_is_whole_and_small() -> None:
    folder = resolve("clip-tiny").folder
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.jsonl",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
