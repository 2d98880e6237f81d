"""The three data sets in memory as the model's 32 by 32 pixels, and batches mixed of them.

Pictures are resized once, as CLIPImageProcessor does (Pillow's bicubic). Augmentation is cheap and keeps captions true:
clothes are mirrored, clothes and emoji are shifted by up to two pixels, emoji change their brightness and tint; scenes
stay as they are. Each picture comes with one of its captions by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from clip_tiny.model import SIDE
from clip_tiny.tokens import CONTEXT
from tercet.data.pictures import Pictures

__all__ = ["Batch", "Part", "captions_to_ids", "mixed", "normalized", "resized"]

SHIFT = 2
TINT = 0.15


@dataclass(frozen=True)
class Batch:
    """pixels f32[n, 3, 32, 32]; ids i64[m, length] of m different captions; same bool[n, m]: which is true of which."""

    pixels: torch.Tensor
    ids: torch.Tensor
    same: torch.Tensor


@dataclass(frozen=True)
class Part:
    """One training set: u8[n, 32, 32, 3], captions, groups; how many of a batch; what augmentation does to it.

    `together`: the captions of a batch are made from one template (few texts, so less work).
    """

    pixels: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    groups: NDArray[np.int64]
    share: int
    together: bool
    mirrored: bool
    shifted: bool
    tinted: bool


def resized(pictures: Pictures) -> NDArray[np.uint8]:
    """u8[n, 32, 32, 3]."""
    made = np.empty((len(pictures), SIDE, SIDE, 3), np.uint8)
    for place, pixels in zip(made, pictures.pixels, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        place[:] = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return made


def normalized(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """f32[n, 3, 32, 32] in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def captions_to_ids(tokenizer: Tokenizer, captions: list[str]) -> torch.Tensor:
    """i64[n, length of the longest], padded with the end token; cut to the context, the end token stays."""
    end = tokenizer.get_vocab_size() - 1
    rows = [tokenizer.encode(caption).ids for caption in captions]
    rows = [row if len(row) <= CONTEXT else [*row[: CONTEXT - 1], end] for row in rows]
    length = max(map(len, rows))
    return torch.tensor([row + [end] * (length - len(row)) for row in rows])


def mixed(parts: list[Part], encoded: dict[str, list[int]], rng: np.random.Generator) -> Batch:
    """A batch of each part's share; `encoded` has the ids of every caption."""
    pixels, words, meanings = [], [], []
    for number, part in enumerate(parts):
        chosen = rng.choice(len(part.pixels), part.share, replace=False)
        pixels.append(_augmented(part, chosen, rng))
        one = rng.random()
        for index in chosen:
            told = part.captions[index]
            # The plain caption, which is what is asked for later, half of the time; one template a batch for classes.
            which = one if part.together else rng.random()
            words.append(told[max(0, int((2 * which - 1) * len(told)))])
            meanings.append((number, int(part.groups[index])))
    meant = list(dict.fromkeys(zip(words, meanings, strict=True)))  # a coat to wear and one drawn are two captions
    rows = [encoded[word] for word, _ in meant]
    length = max(map(len, rows))
    ids = torch.tensor([row + [row[-1]] * (length - len(row)) for row in rows])
    left, right = torch.tensor(meanings), torch.tensor([meaning for _, meaning in meant])
    return Batch(normalized(np.concatenate(pixels)), ids, (left[:, None] == right[None]).all(-1))


def _augmented(part: Part, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
    pixels = part.pixels[chosen]
    if part.mirrored:
        flip = rng.random(len(chosen)) < 0.5
        pixels[flip] = pixels[flip, :, ::-1]
    if part.shifted:
        padded = np.pad(pixels, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), "edge")
        for place, source, (y, x) in zip(pixels, padded, rng.integers(0, 2 * SHIFT + 1, (len(chosen), 2)), strict=True):
            place[:] = source[y : y + SIDE, x : x + SIDE]
    if part.tinted:
        factor = 1 + rng.uniform(-TINT, TINT, (len(chosen), 1, 1, 3)).astype(np.float32)
        pixels = np.clip(pixels * factor, 0, 255).astype(np.uint8)
    return pixels
