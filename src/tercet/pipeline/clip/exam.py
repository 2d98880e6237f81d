"""What a model of pictures and texts knows, from its embeddings: zero-shot top-1, or retrieval in both directions.

A source with classes is classified: a class is the mean of its sentences' embeddings, each of length 1. Of any other
every caption asks for its picture and every picture for one of its captions, by the rules of `tercet eval`
(`tercet.evaluate.retrieval`), so that both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tercet.data.pairs import LARGE, Captioned, Reader
from tercet.data.sets.sample import filled
from tercet.errors import FormatError
from tercet.evaluate.retrieval import Captions, caption_table
from tercet.evaluate.zeroshot import rank_of_label

__all__ = ["Exam", "examine", "prepare"]

Floats = NDArray[np.float32]
BATCH = 256


@dataclass(frozen=True, eq=False)
class Exam:
    """Attributes:
    name: of the source, or what else the table calls it.
    source: pictures, read when they are first needed.
    reader: of the model's family: prepares pictures.
    ids: int64[texts * sentences, length].
    sentences: of each text, as many.
    captions: which texts are right for which picture; None where pictures are classified, by `source.groups`.
    """

    name: str
    source: Captioned
    reader: Reader
    ids: NDArray[np.int64]
    sentences: int
    captions: Captions | None

    @property
    def headline(self) -> str:
        """The measure that stands for the others."""
        return "i2t_r1" if self.captions else "top1"

    def images(self, encode_pixels: Callable[[Floats], Floats]) -> Floats:
        """float32[n, dim]: what an image tower makes of the pictures."""
        size = 12 * len(self.source) * self.reader.towers.pixels.size**2  # bytes, three floats a pixel
        batches = self._prepared if size <= LARGE else self._batches()
        return np.concatenate([encode_pixels(batch) for batch in batches])

    @cached_property
    def _prepared(self) -> list[Floats]:
        """Small ones are prepared once: several models sit the same exam."""
        return list(self._batches())

    def _batches(self) -> Iterator[Floats]:
        count, pixels = len(self.source), self.source.pixels
        for at in range(0, count, BATCH):
            yield self.reader.pictures(pixels[i] for i in range(at, min(at + BATCH, count)))


def prepare(source: Captioned, reader: Reader, name: str = "") -> Exam:
    """A source as both towers read it. Raises FormatError where a picture has neither class nor caption."""
    classes: Sequence[str] = getattr(source, "classes", ())
    if classes:
        templates: Sequence[str] = getattr(source, "templates", ()) or ("{}",)
        told = [filled(template, each) for each in classes for template in templates]
        return Exam(name or source.name, source, reader, reader.labels(told), len(templates), None)
    if not (len(source) and all(source.captions)):
        raise FormatError(f"{source.name}: pictures without captions or classes; nothing can be measured on them")
    captions = Captions(source.captions)
    return Exam(name or source.name, source, reader, reader.labels(captions.texts), 1, captions)


def examine(
    exam: Exam, encode_pixels: Callable[[Floats], Floats], encode_ids: Callable[[NDArray[np.int64]], Floats]
) -> Mapping[str, float]:
    """{"top1"}, or {"i2t_r1", "i2t_r5", "t2i_r1", "t2i_r5"}: shares of 1."""
    images = _unit(exam.images(encode_pixels))
    texts = _unit(np.concatenate([encode_ids(exam.ids[at : at + BATCH]) for at in range(0, len(exam.ids), BATCH)]))
    texts = _unit(texts.reshape(-1, exam.sentences, texts.shape[1]).mean(1))
    if exam.captions is None:
        return {"top1": float((rank_of_label(images, texts, exam.source.groups) < 1).mean())}
    of_text, of_image = caption_table(images, texts, exam.captions)
    ways = (("i2t", of_image), ("t2i", of_text))
    return {f"{way}_r{k}": float((ranks < k).mean()) for k in (1, 5) for way, ranks in ways}


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
