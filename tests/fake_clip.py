"""A model of two towers that understands colours, in numpy: its vectors are what a test can foresee.

A picture's vector is its mean colour in 2 x 2 cells, a text's the colours it names: each vector is computed by itself,
so batches change nothing. Never zero.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.preprocess import Preprocessor

__all__ = ["COLOURS", "SIZE", "Colours", "clip", "paint"]

SIZE = 16
COLOURS = {"red": (230, 20, 20), "green": (20, 200, 30), "blue": (20, 30, 220), "white": (250, 250, 250),
           "yellow": (230, 220, 10), "black": (5, 5, 5)}  # fmt: skip
WORDS = ["<start>", "<end>", "<unk>", *COLOURS, "a", "photo", "of", "thing"]


@dataclass(frozen=True)
class Colours:
    dim: int = 13
    image_size: tuple[int, int] = (SIZE, SIZE)
    context: int = 12
    logit_scale: float = 10.0
    logit_bias: float = 0.0

    def encode_pixels(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert pixels.dtype == np.float32
        assert pixels.shape[1:] == (3, SIZE, SIZE)
        half = SIZE // 2
        cells = [pixels[:, :, y : y + half, x : x + half].mean(axis=(2, 3)) for y in (0, half) for x in (0, half)]
        return np.concatenate([*cells, np.full((len(pixels), 1), 0.3)], axis=1).astype(np.float32)

    def encode_ids(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        assert ids.dtype == np.int64
        assert ids.shape[1:] == (self.context,)
        rows = []
        for row in ids:
            named = [COLOURS[WORDS[i]] for i in row if WORDS[i] in COLOURS] or [(128, 128, 128)]
            colour = (np.mean(named, axis=0) / 255 - 0.5) / 0.5
            rows.append([*np.tile(colour, 4), 0.3])
        return np.array(rows, np.float32).reshape(len(ids), self.dim)


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return made


PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def clip(name: str = "colours") -> Embedder:
    encoder = Colours()
    labels = CaptionTokenizer(tokenizer(), {"pad_token": "<end>"}, encoder.context)
    return Embedder(encoder, Preprocessor.from_config(PREPROCESSOR), labels, name, f"fingerprint of {name}")


def paint(path: Path, colour: str, seed: int = 0, size: tuple[int, int] = (24, 20)) -> Path:
    """A picture of one colour with a little noise of its own, written where it is told."""
    noise = np.random.default_rng(seed).integers(-12, 13, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def save_tokenizer(folder: Path) -> None:
    """tokenizer.json, tokenizer_config.json and preprocessor_config.json of the model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<end>"}))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
