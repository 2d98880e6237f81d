"""What a model of pictures and texts knows, from its embeddings: zero-shot top-1, or retrieval in both directions.

A source with classes is classified: a class is the mean of its sentences' embeddings, each of length 1. Of any other
every picture asks for its caption among those of all groups, and every caption for its picture; pictures of one group
have one caption, and each of them is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tercet.pipeline.clip.data import LARGE, Captioned, Reader

__all__ = ["Exam", "examine", "prepare"]

Floats = NDArray[np.float32]
BATCH = 256


@dataclass(frozen=True, eq=False)
class Exam:
    """Attributes:
    name: of the source, or what else the table calls it.
    source: pictures, read when they are first needed; only the first of them where `text_of` is shorter.
    reader: of the model's family: prepares pictures.
    ids: int64[texts * sentences, length].
    sentences: of each text, as many.
    text_of: int64[n], the right text of each picture.
    classes: whether pictures are classified, and retrieved otherwise.
    """

    name: str
    source: Captioned
    reader: Reader
    ids: NDArray[np.int64]
    sentences: int
    text_of: NDArray[np.int64]
    classes: bool

    @property
    def headline(self) -> str:
        """The measure that stands for the others."""
        return "top1" if self.classes else "i2t_r1"

    def images(self, encode_pixels: Callable[[Floats], Floats]) -> Floats:
        """float32[n, dim]: what an image tower makes of the pictures."""
        size = 12 * len(self.text_of) * self.reader.towers.image_size**2  # bytes, three floats a pixel
        batches = self._prepared if size <= LARGE else self._batches()
        return np.concatenate([encode_pixels(batch) for batch in batches])

    @cached_property
    def _prepared(self) -> list[Floats]:
        """Small ones are prepared once: several models sit the same exam."""
        return list(self._batches())

    def _batches(self) -> Iterator[Floats]:
        count, pixels = len(self.text_of), self.source.pixels
        for at in range(0, count, BATCH):
            yield self.reader.pictures([pixels[i] for i in range(at, min(at + BATCH, count))])


def prepare(source: Captioned, reader: Reader, limit: int | None = None, name: str = "") -> Exam:
    """A source, or the first `limit` pictures of it, as both towers read it."""
    classes: Sequence[str] = getattr(source, "classes", ())
    templates: Sequence[str] = getattr(source, "templates", ()) or ("{}",)
    groups = source.groups[: min(len(source), limit or len(source))]
    if classes:
        told, text_of = [template.format(each) for each in classes for template in templates], groups
    else:
        _, first, text_of = np.unique(groups, return_index=True, return_inverse=True)
        told = [source.captions[int(index)][0] for index in first]
    ids = reader.labels(told)
    return Exam(name or source.name, source, reader, ids, len(templates) if classes else 1, text_of, bool(classes))


def examine(
    exam: Exam, encode_pixels: Callable[[Floats], Floats], encode_ids: Callable[[NDArray[np.int64]], Floats]
) -> Mapping[str, float]:
    """{"top1"}, or {"i2t_r1", "i2t_r5", "t2i_r1", "t2i_r5"}: shares of 1."""
    images = _unit(exam.images(encode_pixels))
    texts = _unit(np.concatenate([encode_ids(exam.ids[at : at + BATCH]) for at in range(0, len(exam.ids), BATCH)]))
    texts = _unit(texts.reshape(-1, exam.sentences, texts.shape[1]).mean(1))
    near = images @ texts.T
    if exam.classes:
        return {"top1": float((near.argmax(1) == exam.text_of).mean())}
    right_text = np.argsort(-near, 1, kind="stable")[:, :5] == exam.text_of[:, None]
    right_image = exam.text_of[np.argsort(-near, 0, kind="stable")[:5]] == np.arange(len(texts))
    found = {}
    for k in (1, 5):
        found[f"i2t_r{k}"] = float(right_text[:, :k].any(1).mean())
        found[f"t2i_r{k}"] = float(right_image[:k].any(0).mean())
    return found


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
