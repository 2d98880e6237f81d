"""What image-text models are compared on while they are made: pictures are prepared once, for many models.

A source with classes is classified: a class is the mean of its sentences' embeddings, each of length 1. Of any other
every caption asks for its picture and every picture for one of its captions. The rules are those of `tercet eval`
(`tercet.evaluate.pictures`); only reading differs: there pictures are streamed, here they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet.data.pairs import LARGE, Captioned, Reader
from tercet.data.sets.sample import filled
from tercet.errors import FormatError
from tercet.evaluate.contents import contents
from tercet.evaluate.pictures import classified, retrieved
from tercet.evaluate.retrieval import Captions
from tercet.evaluate.rows import Row
from tercet.runtime.pictures.encoder import Encoder

__all__ = ["Exam", "examine", "examined", "prepare", "scored"]

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
        """The metric that stands for the others."""
        return "image_to_text_r1" if self.captions else "top1"

    def images(self, encode_pixels: Callable[[Floats], Floats]) -> Floats:
        """float32[n, dim]: what an image tower makes of the pictures."""
        size = 12 * len(self.source) * self.reader.model.pixels.size**2  # bytes, three floats a pixel
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
        sentences = [filled(template, each) for each in classes for template in templates]
        return Exam(name or source.name, source, reader, reader.captions(sentences), len(templates), None)
    if not (len(source) and all(source.captions)):
        raise FormatError(f"{source.name}: pictures without captions or classes; nothing can be measured on them")
    captions = Captions(source.captions)
    return Exam(name or source.name, source, reader, reader.captions(captions.texts), 1, captions)


def examine(
    exam: Exam, encode_pixels: Callable[[Floats], Floats], encode_ids: Callable[[NDArray[np.int64]], Floats]
) -> Mapping[str, float]:
    """Metrics by name, shares of 1."""
    images = _unit(exam.images(encode_pixels))
    texts = _unit(np.concatenate([encode_ids(exam.ids[at : at + BATCH]) for at in range(0, len(exam.ids), BATCH)]))
    texts = _unit(texts.reshape(-1, exam.sentences, texts.shape[1]).mean(1))
    if exam.captions is None:
        found = classified(images, texts, exam.source.groups)
    else:
        found = retrieved(images, texts, exam.captions)
    return {name: queries.mean() for name, queries in found.items()}


def examined(folder: Path, name: str, exams: Sequence[Exam], threads: int | None = None) -> Row:
    """The row of a packed folder, run by the engine."""
    inside = contents(folder)
    scores: dict[str, float] = {}
    if exams:
        encoder = Encoder.open(folder, threads=threads)
        scores = scored(exams, encoder.encode_pixels, encoder.encode_ids)
    return Row(
        name=name,
        runs_on="engine",
        file_mb=inside.file_mb,
        bits_per_weight=inside.bits_per_weight,
        scores=scores,
        ternary_share=inside.ternary_share,
        zero_share=inside.zero_share,
    )


def scored(
    exams: Sequence[Exam],
    encode_pixels: Callable[[Floats], Floats],
    encode_ids: Callable[[NDArray[np.int64]], Floats],
) -> dict[str, float]:
    """{"<exam> <metric>": share} of all exams."""
    return {f"{e.name} {name}": value for e in exams for name, value in examine(e, encode_pixels, encode_ids).items()}


def _unit(x: Floats) -> Floats:
    unit: Floats = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit
