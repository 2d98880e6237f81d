"""One or two models of two towers on a set of pictures: zero-shot classification, retrieval, linear probe.

A model sees each picture once; what is kept of it is its embedding. Two models are compared on the same queries: those
that both could read, which is all of them, since reading does not depend on the model. Numbers are shares, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError, TercetError
from tercet.evaluate.bootstrap import paired
from tercet.evaluate.datasets import PictureSet, Sample
from tercet.evaluate.probe import probe
from tercet.evaluate.retrieval import Captions, caption_table
from tercet.evaluate.zeroshot import average_precision, class_vectors, mean_per_class, rank_of_label
from tercet.runtime.clip import BATCH, Clip, normalized

__all__ = ["Measured", "as_dict", "compare", "measure"]

PLACES = (1, 5, 10)
MAX_REFUSED = 20  # listed; all are counted

Progress = Callable[[str, int, int], None]


@dataclass
class Measured:
    """A model on a set.

    Attributes:
        metrics: shares by name, those of the set's own metric among them.
        hits: of each query, by the metric it belongs to: what a comparison pairs.
        groups: queries that are drawn together, by the same names; only where there are such.
        pictures: how many were read.
        refused: of those that were not, name and reason.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    hits: dict[str, NDArray[Any]] = field(default_factory=dict)
    groups: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    pictures: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def measure(
    clip: Clip,
    pictures: PictureSet,
    *,
    limit: int | None = None,
    linear: bool = False,
    batch: int = BATCH,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measures one model.

    Args:
        limit: read the first so many pictures only.
        linear: a linear probe on the set's training pictures too.

    Raises FormatError: the set is damaged, empty or names classes that it does not have; TercetError: no training
    pictures for the probe.
    """
    told = _Told(progress, clip.name, pictures.name)
    result = Measured()
    samples, vectors = _embed(clip, pictures.samples(), result, limit, batch, workers, told)
    result.pictures = len(samples)
    if not samples:
        why = f"; the first: {result.refused[0][1]}" if result.refused else ""
        raise FormatError(f"{pictures.name}: no picture in it could be read{why}")
    if pictures.task == "retrieval":
        _retrieval(clip, samples, vectors, result)
        return result
    _check_classes(pictures, samples)
    names = class_vectors(clip, pictures.classes, pictures.templates)
    if pictures.metric == "mean_average_precision" or any(len(sample.labels) != 1 for sample in samples):
        _several(vectors @ names.T, samples, result)
        return result
    labels = np.array([sample.labels[0] for sample in samples], np.int64)
    ranks = rank_of_label(vectors, names, labels)
    result.hits["top1"] = ranks < 1
    result.metrics["top1"] = float((ranks < 1).mean())
    result.metrics["top5"] = float((ranks < 5).mean())
    result.metrics["mean_per_class"] = mean_per_class(ranks < 1, labels)
    if linear:
        _linear(clip, pictures, vectors, labels, result, batch, workers, told)
    return result


def compare(model: Measured, original: Measured) -> dict[str, dict[str, float]]:
    """model - original with a 95 % interval, for each metric that is a mean over queries. Raises TercetError."""
    return {
        name: paired(hits, original.hits[name], model.groups.get(name)).as_dict() for name, hits in model.hits.items()
    }


class _Told:
    def __init__(self, progress: Progress | None, model: str, dataset: str) -> None:
        self._progress, self._what, self._done = progress, f"{Path(model).name}: {dataset}", 0

    def __call__(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._what, self._done, self._done)


def _embed(
    clip: Clip,
    samples: Iterable[Sample],
    result: Measured,
    limit: int | None,
    batch: int,
    workers: int | None,
    told: _Told,
) -> tuple[list[Sample], NDArray[np.float32]]:
    """The samples that could be read, without their pictures, and float32[n, dim] of length 1."""
    kept: list[Sample] = []
    vectors: list[NDArray[np.float32]] = []
    for made in clip.pictures(islice(samples, limit), lambda sample: sample.picture, batch=batch, workers=workers):
        kept += [Sample(sample.name, b"", sample.labels, sample.captions) for sample in made.sources]
        vectors.append(normalized(made.vectors))
        result.refused += [(sample.name, reason) for sample, reason in made.refused]
        told(len(made.sources) + len(made.refused))
    return kept, np.concatenate(vectors) if vectors else np.zeros((0, clip.encoder.dim), np.float32)


def _check_classes(pictures: PictureSet, samples: list[Sample]) -> None:
    for sample in samples:
        if any(label >= len(pictures.classes) for label in sample.labels):
            raise FormatError(
                f"{pictures.name}: {sample.name[:80]!r} is of class {max(sample.labels)}, but there are names for"
                f" {len(pictures.classes)}; correct classnames.txt"
            )


def _retrieval(clip: Clip, samples: list[Sample], vectors: NDArray[np.float32], result: Measured) -> None:
    missing = next((sample.name for sample in samples if not sample.captions), None)
    if missing is not None:
        raise FormatError(f"{missing[:80]!r} has no caption; each picture of a retrieval set needs one")
    captions = Captions([sample.captions for sample in samples])
    texts = normalized(clip.texts(captions.texts))
    for name, ranks in zip(("text_to_image", "image_to_text"), caption_table(vectors, texts, captions), strict=True):
        for place in PLACES:
            result.metrics[f"{name}_r{place}"] = float((ranks < place).mean())
        result.hits[f"{name}_r1"] = ranks < 1
    result.metrics["recall"] = (result.metrics["text_to_image_r1"] + result.metrics["image_to_text_r1"]) / 2
    result.groups["text_to_image_r1"] = captions.owners


def _several(scores: NDArray[np.float32], samples: list[Sample], result: Measured) -> None:
    """Pictures of several classes: the mean over classes of the average precision."""
    truth = np.zeros(scores.shape, bool)
    for row, sample in zip(truth, samples, strict=True):
        row[list(sample.labels)] = True
    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        raise FormatError("no picture of the set has a class; is it the right one?")
    values = [average_precision(scores[:, one], truth[:, one]) for one in present]
    result.metrics["mean_average_precision"] = float(np.mean(values))
    result.hits["mean_average_precision"] = np.array(values)


def _linear(
    clip: Clip,
    pictures: PictureSet,
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    result: Measured,
    batch: int,
    workers: int | None,
    told: _Told,
) -> None:
    if pictures.training is None:
        raise TercetError(f"{pictures.name}: no training pictures for a linear probe; put them in train/ beside test/")
    samples, learned = _embed(clip, pictures.training(), result, None, batch, workers, told)
    _check_classes(pictures, samples)
    known = np.array([sample.labels[0] for sample in samples], np.int64)
    right = probe(learned, known, vectors, len(pictures.classes)).argmax(axis=1) == labels
    result.hits["linear_probe"] = right
    result.metrics["linear_probe"] = float(right.mean())


def as_dict(pictures: PictureSet, models: Mapping[str, Measured]) -> dict[str, Any]:
    """A dataset's part of the result: each model's metrics, and the first's difference from the second's."""
    measured = list(models.values())
    first = measured[0]
    return {
        "name": pictures.name,
        "task": pictures.task,
        "metric": pictures.metric if pictures.metric in first.metrics else "mean_average_precision",
        "classes": len(pictures.classes),
        "pictures": first.pictures,
        "queries": {name: len(hits) for name, hits in first.hits.items()},
        "refused": len(first.refused),
        "refusals": [{"picture": name, "reason": reason} for name, reason in first.refused[:MAX_REFUSED]],
        "models": {name: one.metrics for name, one in models.items()},
        "difference": compare(first, measured[1]) if len(measured) > 1 else None,
    }
