"""The sources of pictures that Tercet trains its own small model on, as datasets: NAME, or NAME:SPLIT.

fashion-mnist   classes                     splits train, validation, test (the default)
emoji, scenes   captions: retrieval         and unseen: another artist, combinations that were held out
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import cast, get_args

from tercet.data.pictures import Pictures, Split
from tercet.data.sets.sample import PictureSet, Sample
from tercet.errors import FormatError

__all__ = ["BUILT_IN", "built_in"]

BUILT_IN = ("fashion-mnist", "emoji", "scenes")


def built_in(name: str) -> PictureSet | None:
    """The set of this name; None where it is no such name. Raises FormatError for an unknown split, ModelError where
    the package that holds the pictures is not to be had."""
    source, _, split = name.partition(":")
    if source not in BUILT_IN:
        return None
    split = split or "test"
    if split not in get_args(Split):
        raise FormatError(f"{name[:200]}: no split {split[:40]!r}; there are {', '.join(get_args(Split))}")
    read = import_module("tercet.data.pictures." + source.replace("-", "_")).pictures
    made: Pictures = read(cast(Split, split))
    if not made.classes:
        return PictureSet(name, "retrieval", "recall", (), (), partial(_samples, made))
    training = None if split == "train" else lambda: _samples(read("train"))
    return PictureSet(name, "classification", "top1", made.classes, made.templates, partial(_samples, made), training)


def _samples(made: Pictures) -> Iterator[Sample]:
    for number, (pixels, captions, group) in enumerate(zip(made.pixels, made.captions, made.groups, strict=True)):
        name = f"{made.name} {number}"
        yield Sample(name, pixels, (int(group),)) if made.classes else Sample(name, pixels, captions=captions)
