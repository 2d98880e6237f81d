"""Folders of tiny models of pictures and texts, with a tokenizer of a dozen words, and pictures that say what they are.

A picture's colour is its caption's: enough for a model to learn something that an exam can see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import models, pre_tokenizers, processors

import tiny_towers

__all__ = ["COLOURS", "Coloured", "folder"]

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}
WORDS = ["a", "photo", "of", "the", *COLOURS]


def folder(place: Path, family: str = "clip", **parts: Any) -> Path:
    """Weights, config, tokenizer and preprocessor, as transformers writes them."""
    place.mkdir(parents=True, exist_ok=True)
    made, config, _ = tiny_towers.model(family, **parts)
    made.save_pretrained(place)
    (place / "config.json").write_text(json.dumps(config))
    vocabulary = {"<unk>": 0, "<pad>": 1, "<end>": tiny_towers.END}
    vocabulary |= {word: index for index, word in enumerate(WORDS, start=3)}
    made_tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = ("<end>", tiny_towers.END)
    made_tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[end])
    made_tokenizer.save(str(place / "tokenizer.json"))
    (place / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "pad_token": "<pad>", "eos_token": "<end>"})
    )
    side = config["vision_config"]["image_size"]
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": side},
        "crop_size": {"height": side, "width": side},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "resample": 3,
    }
    (place / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return place


@dataclass(frozen=True)
class Coloured:
    """`count` noisy pictures of four colours, of different sizes; every other caption is missing if `half`."""

    count: int
    seed: int = 0
    half: bool = False
    name: str = "colours"
    classes: tuple[str, ...] = tuple(COLOURS)
    templates: tuple[str, ...] = ("a photo of the {}", "{}")

    def __len__(self) -> int:
        return self.count

    @property
    def groups(self) -> NDArray[np.int64]:
        return np.arange(self.count) % len(COLOURS)

    @property
    def pixels(self) -> list[NDArray[np.uint8]]:
        rng = np.random.default_rng(self.seed)
        found = []
        for group in self.groups:
            colour = np.array(list(COLOURS.values())[group])
            noisy = colour + rng.normal(0, 40, (30 + int(rng.integers(8)), 34, 3))
            found.append(noisy.clip(0, 255).astype(np.uint8))
        return found

    @property
    def captions(self) -> list[tuple[str, ...]]:
        told = [tuple(each.format(list(COLOURS)[group]) for each in self.templates) for group in self.groups]
        return [() if self.half and index % 2 else each for index, each in enumerate(told)]
