"""Pictures with captions, by what a user names them.

    fashion-mnist, emoji, scenes    what can be had by anyone (`tercet.data.pictures`)
    a folder of pictures            without captions
    anything else                   a data set of `tercet.data.sets`: class folders, tables, tars, names

A class says all its sentences; pictures of one class are one group. Files are opened when they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from tercet.data.pairs import Captioned
from tercet.data.sets import PictureSet, Sample, open_set
from tercet.data.sets.folders import say_left_out
from tercet.data.sets.sample import check_classes, filled
from tercet.errors import FormatError
from tercet.fsio import user_path
from tercet.runtime.pictures.files import SUFFIXES, opened
from tercet.runtime.pictures.preprocess import on_white

__all__ = ["KNOWN", "Opened", "captioned", "captions"]

KNOWN = {"fashion-mnist": "fashion_mnist", "emoji": "emoji", "scenes": "scenes"}


class _Pixels(Sequence[NDArray[np.uint8]]):
    """Pictures as uint8[height, width, 3]; FormatError, when it is read, for what is none."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]
        sample = self.samples[index]
        with opened(sample.picture, sample.name) as picture:
            return np.asarray(on_white(picture))


@dataclass(frozen=True, eq=False)
class Opened:
    """A data set, its list read; fields as of `tercet.data.pictures.Pictures`."""

    name: str
    pixels: Sequence[NDArray[np.uint8]]
    captions: tuple[tuple[str, ...], ...]
    groups: NDArray[np.int64]
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


def captioned(name: str, split: Literal["train", "validation", "test", "unseen"] = "train") -> Captioned:
    """A source of pictures; `split` is of those that have some.

    Raises FormatError where it is none, or damaged; ModelError where a known one cannot be had.
    """
    if name in KNOWN:
        return cast(Captioned, import_module(f"tercet.data.pictures.{KNOWN[name]}").pictures(split))
    path = user_path(name)
    if path.is_dir() and not any(each.is_dir() for each in path.iterdir()):
        samples = [Sample(each.name, each) for each in sorted(path.iterdir()) if each.suffix.lower() in SUFFIXES]
        if samples:
            say_left_out(path)
            return Opened(path.name, _Pixels(samples), ((),) * len(samples), np.arange(len(samples)))
    return _opened(open_set(name), training=split == "train")


def captions(path: Path) -> list[str]:
    """Lines of a text file that are not empty. Raises FormatError."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read as UTF-8 text: {str(error)[:100]}") from None


def _opened(found: PictureSet, *, training: bool) -> Opened:
    samples = list((found.training if training and found.training else found.samples)())
    if found.task == "classification":
        told = [tuple(filled(each, name) for each in found.templates) for name in found.classes]
        check_classes(found, samples)
        if any(len(sample.labels) != 1 for sample in samples):
            raise FormatError(f"{found.name}: pictures of several classes have no caption; give those of one class")
        groups = np.array([sample.labels[0] for sample in samples], np.int64)
        kept = tuple(told[int(group)] for group in groups)
        return Opened(found.name, _Pixels(samples), kept, groups, found.classes, found.templates)
    told_of = tuple(sample.captions for sample in samples)
    return Opened(found.name, _Pixels(samples), told_of, np.arange(len(samples)))
