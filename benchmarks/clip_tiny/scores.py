"""What the model knows: zero-shot top-1 of Fashion-MNIST, retrieval in both directions of emoji and scenes.

Retrieval of a split: every picture asks for its caption among all captions of the split (image to text), every caption
for its picture among all pictures (text to image); pictures of one group have one caption, each of them is right.
"""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import CLIPModel

from clip_tiny.mixture import captions_to_ids, normalized, resized
from tercet.data.pictures import Pictures

__all__ = ["Prepared", "scores"]

CHUNK = 500


class Prepared:
    """A split ready to be scored: pixels u8[n, 32, 32, 3], and for each text its sentences (an ensemble)."""

    def __init__(self, pictures: Pictures, limit: int | None = None) -> None:
        kept = slice(limit)
        self.pixels = resized(pictures)[kept]
        groups = pictures.groups[kept]
        if pictures.classes:
            self.sentences = [[t.format(name) for t in pictures.templates] for name in pictures.classes]
            self.text_of = groups
        else:
            first = {int(group): index for index, group in reversed(list(enumerate(groups)))}
            order = sorted(first)
            self.sentences = [[pictures.captions[first[group]][0]] for group in order]
            self.text_of = np.searchsorted(order, groups)
        self.classification = bool(pictures.classes)


@torch.no_grad()
def embed(model: CLIPModel, tokenizer: Tokenizer, data: Prepared) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors of the pictures f32[n, dim] and of the texts f32[m, dim] (the mean of their sentences)."""
    chunks = [normalized(data.pixels[i : i + CHUNK]) for i in range(0, len(data.pixels), CHUNK)]
    images = torch.cat([image_features(model, chunk) for chunk in chunks])
    texts = []
    width = len(data.sentences[0])
    flat = [sentence for sentences in data.sentences for sentence in sentences]
    for start in range(0, len(flat), CHUNK * width):
        vectors = text_features(model, captions_to_ids(tokenizer, flat[start : start + CHUNK * width]))
        texts.append(functional.normalize(vectors.view(-1, width, vectors.shape[-1]).mean(1), dim=-1))
    return images, torch.cat(texts)


def image_features(model: CLIPModel, pixels: torch.Tensor) -> torch.Tensor:
    """Unit vectors f32[n, dim]."""
    return functional.normalize(model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1)


def text_features(model: CLIPModel, ids: torch.Tensor) -> torch.Tensor:
    """Unit vectors f32[n, dim]."""
    return functional.normalize(model.text_projection(model.text_model(input_ids=ids).pooler_output), dim=-1)


def scores(model: CLIPModel, tokenizer: Tokenizer, data: Prepared) -> dict[str, float]:
    """{"top1"} for classification, else {"i2t_r1", "i2t_r5", "t2i_r1", "t2i_r5"}; shares of 1."""
    model.eval()
    images, texts = embed(model, tokenizer, data)
    model.train()
    near = images @ texts.T
    of = torch.from_numpy(data.text_of)
    if data.classification:
        return {"top1": (near.argmax(1) == of).float().mean().item()}
    found = {}
    for k in (1, 5):
        right = near.topk(k, 1).indices == of[:, None]
        found[f"i2t_r{k}"] = right.any(1).float().mean().item()
        right = of[near.topk(k, 0).indices] == torch.arange(len(texts))
        found[f"t2i_r{k}"] = right.any(0).float().mean().item()
    return found
