"""Image-text models: zero-shot classification and retrieval on the test splits of data sets, beside the original's.

The headline of several data sets is the mean of what stands for each: top-1 where there are classes, else R@1 from
pictures to texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tercet.compare.exam import COSTS, Headline, Measured
from tercet.compare.settings import Settings
from tercet.data.captioned import captioned, captions
from tercet.data.pairs import Captioned, Reader
from tercet.errors import TercetError
from tercet.evaluate.exam import Exam as Sat
from tercet.evaluate.exam import prepare, scored
from tercet.evaluate.originals import original_row, validation
from tercet.evaluate.rows import words
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources import Source

__all__ = ["PairExam"]

MEAN = "mean"
CLASSES, CAPTIONS = ("top1",), ("image_to_text_r1", "text_to_image_r1")  # of the table


class PairExam:
    """See `tercet.compare.exam.Exam`.

    Raises TercetError where there is nothing to measure on, or it would choose learning rates too; FormatError where
    pictures cannot be read.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        if not settings.data.eval_pictures:
            raise TercetError("no pictures to measure on; give some, with classes or captions")
        self.source, self.threads = source, settings.threads
        reader = Reader.open(source)
        learnt = [_opened(each, "train") for each in settings.data.pictures]
        self._test = [prepare(_opened(each, "test"), reader) for each in settings.data.eval_pictures]
        self._validation = [prepare(_opened(each, "validation"), reader) for each in settings.validation_pictures]
        self.chooses = bool(self._validation)
        self.data = replace(
            settings.data, pictures=tuple(learnt), eval_pictures=tuple(sat.source for sat in self._validation)
        )
        test, by = ({sat.name: _digest(sat) for sat in each} for each in (self._test, self._validation))
        _refuse_overlap(self._test, test, by)
        lone = settings.data.captions
        texts = captions(lone) if isinstance(lone, Path) else list(lone)
        told = [(each.name, _told(each)) for each in learnt]
        self.identity: Mapping[str, Any] = {"test": test, "validation": by, "learnt": told, "captions": texts}
        self.headline = Headline(MEAN if len(self._test) > 1 else _headline(self._test[0]), less=False)
        shown = [f"{sat.name} {name}" for sat in self._test for name in (CAPTIONS if sat.captions else CLASSES)]
        self.shown: Sequence[str] = [MEAN, *shown] if len(self._test) > 1 else shown
        self.protocol = self._protocol()

    @cached_property
    def original(self) -> Mapping[str, Any]:
        row = original_row(self.source, self._test)
        scores = self._with_mean(row.scores)
        return {
            "scores": scores,
            "file_mb": row.file_mb,
            "bits_per_weight": row.bits_per_weight,
            "runs_on": row.runs_on,
        }

    def scores(self, model: Measured) -> dict[str, float]:
        return self._with_mean(self._sit(self._test, model))

    def validated(self, model: Measured) -> float:
        return self.of_journal(self._sit(self._validation, model))

    def of_journal(self, evaluation: Mapping[str, float]) -> float:
        return _mean(self._validation, evaluation)

    def _sit(self, sat: Sequence[Sat], model: Measured) -> Mapping[str, float]:
        if not isinstance(model, Path):
            return validation(sat)(model)
        encoder = Encoder.open(model, threads=self.threads)
        return scored(sat, encoder.encode_pixels, encoder.encode_ids)

    def _with_mean(self, scores: Mapping[str, float]) -> dict[str, float]:
        if self.headline.name != MEAN:
            return dict(scores)
        return {MEAN: _mean(self._test, scores), **scores}

    def _protocol(self) -> str:
        of = ", ".join(words(_headline(sat)) for sat in self._test)
        mean = f"The mean is that of {of}. " if len(self._test) > 1 else ""
        by = ", ".join(words(_headline(sat)) for sat in self._validation)
        chosen = (
            f"Learning rates are chosen by the mean of {by}, on validation pictures, after a quarter of the steps. "
            if self.chooses
            else ""
        )
        sizes = ", ".join(f"{sat.name} ({len(sat.source):,} pictures)" for sat in self._test)
        return (
            f"Percent of all queries on {sizes}; in brackets the points from the original. {mean}Packed models by the"
            f" engine, the original and what is trained on by torch in float32. {chosen}{COSTS} The original's MB are"
            " those of float32 weights."
        )


def _opened(given: str | Captioned, split: Literal["train", "validation", "test"]) -> Captioned:
    return captioned(given, split) if isinstance(given, str) else given


def _headline(sat: Sat) -> str:
    return f"{sat.name} {sat.headline}"


def _mean(sat: Sequence[Sat], scores: Mapping[str, float]) -> float:
    return float(np.mean([scores[_headline(each)] for each in sat]))


def _refuse_overlap(sat: Sequence[Sat], test: Mapping[str, str], validation: Mapping[str, str]) -> None:
    if len(test) < len(sat):
        raise TercetError("two data sets to measure on have one name; name their files or folders apart")
    for name, digest in validation.items():
        if digest in test.values():
            raise TercetError(f"{name}: learning rates would be chosen by the pictures of the table; give others")


def _digest(sat: Sat) -> str:
    """Of sentences, of what is right for what, and of all pixels."""
    told = _told(sat.source)
    digest = hashlib.sha256(f"{told} {sat.ids.shape}".encode() + np.ascontiguousarray(sat.ids).tobytes())
    pixels = sat.source.pixels
    for each in (pixels[index] for index in range(len(sat.source))):
        digest.update(f"{each.shape}".encode() + np.ascontiguousarray(each).tobytes())
    return digest.hexdigest()[:32]


def _told(source: Captioned) -> str:
    """Of captions and groups: pictures that are learnt from are not read for it."""
    return hashlib.sha256(repr([source.captions, source.groups.tolist()]).encode()).hexdigest()[:32]
