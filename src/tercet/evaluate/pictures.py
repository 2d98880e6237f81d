"""One or two models of two towers on a set of pictures: zero-shot classification, retrieval, linear probe.

A model sees each picture once; what is kept of it is its embedding. Two models are compared on the same queries: those
that both could read, which is all of them, since reading does not depend on the model. Numbers are shares, 0 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.data.sets import PictureSet, Sample
from tercet.data.sets.sample import check_classes
from tercet.errors import FormatError, TercetError
from tercet.evaluate.bootstrap import Queries, paired
from tercet.evaluate.probe import probe
from tercet.evaluate.retrieval import Captions, caption_table
from tercet.evaluate.zeroshot import average_precision, class_vectors, rank_of_label
from tercet.runtime.pictures.embedder import BATCH, Embedder, normalized

__all__ = ["Measured", "as_dict", "classified", "compare", "measure", "retrieved"]

PLACES = (1, 5, 10)
MAX_REFUSED = 20  # listed; all are counted

Progress = Callable[[str, int, int], None]


@dataclass
class Measured:
    """A model on a set.

    Attributes:
        metrics: shares by name, those of the set's own metric among them.
        queries: what each metric is the mean of, which a comparison pairs.
        pictures: how many were read.
        refused: of those that were not, name and reason.
        learned: how many pictures a linear probe was fitted on; None without one.
        unlearned: as `refused`, of those.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    queries: dict[str, Queries] = field(default_factory=dict)
    pictures: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    learned: int | None = None
    unlearned: list[tuple[str, str]] = field(default_factory=list)

    def take(self, found: Mapping[str, Queries]) -> None:
        """More metrics, by their queries."""
        self.queries.update(found)
        self.metrics.update({name: queries.mean() for name, queries in found.items()})


def classified(
    pictures: NDArray[np.float32], classes: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, Queries]:
    """Zero-shot classification: the queries of "top1", "top5" and "mean_per_class".

    Args:
        pictures: float32[n, dim], classes: float32[classes, dim], all of length 1. labels: int64[n].
    """
    ranks = rank_of_label(pictures, classes, labels)
    tops = {name: Queries(ranks < place) for name, place in (("top1", 1), ("top5", 5))}
    return {**tops, "mean_per_class": Queries(ranks < 1, classes=labels)}


def retrieved(pictures: NDArray[np.float32], texts: NDArray[np.float32], captions: Captions) -> dict[str, Queries]:
    """Retrieval in both directions: the queries of R@1, R@5 and R@10, and of "recall", the mean of both R@1.

    Args:
        pictures: float32[n, dim], texts: float32[len(captions.texts), dim], all of length 1.
    """
    by_text, by_picture = caption_table(pictures, texts, captions)
    owners = (captions.owners, np.arange(len(pictures)))  # a picture is drawn with all its captions
    found = dict[str, Queries]()
    for name, ranks, groups in zip(("text_to_image", "image_to_text"), (by_text, by_picture), owners, strict=True):
        found |= {f"{name}_r{place}": Queries(ranks < place, groups) for place in PLACES}
    both = np.concatenate([by_text, by_picture]) < 1
    found["recall"] = Queries(both, np.concatenate(owners), halves=np.arange(len(both)) < len(by_text))
    return found


def measure(
    embedder: Embedder,
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
        limit: read so many pictures only, evenly from the classes; of the training pictures as many.
        linear: a linear probe on the set's training pictures too, where each picture has one class.

    Raises FormatError: the set is damaged, empty or names classes that it does not have; TercetError: no training
    pictures for the probe.
    """
    count = ProgressCounter(progress, embedder.name, pictures.name)
    result = Measured()
    one_class = pictures.task == "classification" and pictures.metric != "mean_average_precision"
    training = _training(pictures) if linear and one_class else None  # what is wrong with it is said at once
    samples, vectors = _embed(embedder, _evenly(pictures.samples(), limit), result.refused, batch, workers, count)
    result.pictures = len(samples)
    if not samples:
        why = f"; the first: {result.refused[0][1]}" if result.refused else ""
        raise FormatError(f"{pictures.name}: no picture in it could be read{why}")
    if pictures.task == "retrieval":
        _retrieval(embedder, samples, vectors, result)
        return result
    check_classes(pictures, samples)
    names = class_vectors(embedder, pictures.classes, pictures.templates)
    if pictures.metric == "mean_average_precision" or any(len(sample.labels) != 1 for sample in samples):
        _several(vectors @ names.T, samples, result)
        return result
    labels = np.array([sample.labels[0] for sample in samples], np.int64)
    result.take(classified(vectors, names, labels))
    if training is not None:
        share = None if limit is None else max(limit // len(pictures.classes), 1)
        learned = _embed(embedder, _shared(training, share), result.unlearned, batch, workers, count)
        _linear(pictures, *learned, vectors, labels, result)
    return result


def compare(model: Measured, original: Measured) -> dict[str, dict[str, float]]:
    """model - original with a 95 % interval, for each metric. Raises TercetError."""
    return {name: paired(own, original.queries[name]).as_dict() for name, own in model.queries.items()}


class ProgressCounter:
    def __init__(self, progress: Progress | None, model: str, dataset: str) -> None:
        self._progress, self._what, self._done = progress, f"{Path(model).name}: {dataset}", 0

    def __call__(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._what, self._done, self._done)


def _embed(
    embedder: Embedder,
    samples: Iterable[Sample],
    refused: list[tuple[str, str]],
    batch: int,
    workers: int | None,
    count: ProgressCounter,
) -> tuple[list[Sample], NDArray[np.float32]]:
    """The samples that could be read, without their pictures, and float32[n, dim] of length 1; others to `refused`."""
    kept: list[Sample] = []
    vectors: list[NDArray[np.float32]] = []
    for made in embedder.pictures(samples, lambda sample: sample.picture, batch=batch, workers=workers):
        kept += [Sample(sample.name, b"", sample.labels, sample.captions) for sample in made.sources]
        vectors.append(normalized(made.vectors))
        refused += [(sample.name, reason) for sample, reason in made.refused]
        count(len(made.sources) + len(made.refused))
    return kept, np.concatenate(vectors) if vectors else np.zeros((0, embedder.encoder.dim), np.float32)


def _retrieval(embedder: Embedder, samples: list[Sample], vectors: NDArray[np.float32], result: Measured) -> None:
    missing = next((sample.name for sample in samples if not sample.captions), None)
    if missing is not None:
        raise FormatError(f"{missing[:80]!r} has no caption; each picture of a retrieval set needs one")
    captions = Captions([sample.captions for sample in samples])
    texts = normalized(embedder.texts(captions.texts))
    result.take(retrieved(vectors, texts, captions))


def _several(scores: NDArray[np.float32], samples: list[Sample], result: Measured) -> None:
    """Pictures of several classes: the mean over classes of the average precision. A comparison draws classes."""
    truth = np.zeros(scores.shape, bool)
    for row, sample in zip(truth, samples, strict=True):
        row[list(sample.labels)] = True
    present = np.flatnonzero(truth.any(axis=0))
    if not len(present):
        raise FormatError("no picture of the set has a class; is it the right one?")
    values = [average_precision(scores[:, one], truth[:, one]) for one in present]
    result.take({"mean_average_precision": Queries(np.array(values))})


def _training(pictures: PictureSet) -> Iterator[Sample]:
    if pictures.training is None:
        raise TercetError(f"{pictures.name}: no training pictures for a linear probe; put them in train/ beside test/")
    return pictures.training()


def _evenly(samples: Iterable[Sample], limit: int | None) -> Iterable[Sample]:
    """So many, in their order: the first of each class, then the second of each, and so on; all if `limit` is None."""
    if limit is None:
        return samples
    listed, turns, seen = list(samples), list[tuple[int, int]](), Counter[tuple[int, ...]]()
    for place, sample in enumerate(listed):
        turns.append((seen[sample.labels], place))
        seen[sample.labels] += 1
    return [listed[place] for place in sorted(place for _, place in sorted(turns)[:limit])]


def _shared(samples: Iterable[Sample], share: int | None) -> Iterator[Sample]:
    """The first `share` of each class, all if absent: the first of all would often be of one class."""
    counts: Counter[tuple[int, ...]] = Counter()
    for sample in samples:
        counts[sample.labels] += 1
        if share is None or counts[sample.labels] <= share:
            yield sample


def _linear(
    pictures: PictureSet,
    samples: list[Sample],
    learned: NDArray[np.float32],
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    result: Measured,
) -> None:
    check_classes(pictures, samples)
    other = next((sample for sample in samples if len(sample.labels) != 1), None)
    if other is not None:
        raise FormatError(
            f"{pictures.name}: {other.name[:80]!r} in train/ is not of one class; a linear probe needs that"
        )
    known = np.array([sample.labels[0] for sample in samples], np.int64)
    right = probe(learned, known, vectors, len(pictures.classes)).argmax(axis=1) == labels
    result.take({"linear_probe": Queries(right)})
    result.learned = len(samples)


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
        "queries": {name: len(own) for name, own in first.queries.items()},
        "refused": len(first.refused),
        "refusals": [{"picture": name, "reason": reason} for name, reason in first.refused[:MAX_REFUSED]],
        "learned": first.learned,
        "unlearned": len(first.unlearned),
        "models": {name: one.metrics for name, one in models.items()},
        "difference": compare(first, measured[1]) if len(measured) > 1 else None,
    }
