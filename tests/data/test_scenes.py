"""Rendered scenes: the same for ever, and every caption true, as an independent look at the pixels finds."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from tercet.data.pictures import scenes
from tercet.data.pictures.drawing import SHAPES, SIDE, mask
from tercet.errors import ModelError

SPLITS = ("train", "validation", "test", "unseen")
PLAIN = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 220), "yellow": (240, 220, 50),
    "purple": (150, 50, 180), "orange": (245, 140, 30), "white": (250, 250, 250), "black": (20, 20, 20),
}  # fmt: skip
ONE = r"(a|two|three|four) (small|large) (\w+) (circle|square|triangle|star|ring|cross)(?:e?s)?"
SENTENCE = re.compile(rf"{ONE}(?: (above|below|left of|right of) {ONE})?")
NUMBERS = {"a": 1, "two": 2, "three": 3, "four": 4}


class Blob:
    """A connected patch of pixels that are not ground: where it is, how large, which colour."""

    def __init__(self, pixels: NDArray[np.int64], picture: NDArray[np.uint8]) -> None:
        self.ys, self.xs = pixels.T
        self.y, self.x = (self.ys.min() + self.ys.max()) / 2, (self.xs.min() + self.xs.max()) / 2
        self.side = max(np.ptp(self.ys), np.ptp(self.xs)) + 1
        values, counts = np.unique(picture[self.ys, self.xs], axis=0, return_counts=True)
        own = values[counts.argmax()].astype(int)  # soft edges are mixtures, each rarer than the colour itself
        self.colour = min(PLAIN, key=lambda name: float(np.square(own - PLAIN[name]).sum()))
        self.size = "small" if self.side <= 17 else "large"

    def filled(self) -> NDArray[np.bool_]:
        box = np.zeros((np.ptp(self.ys) + 1, np.ptp(self.xs) + 1), bool)
        box[self.ys - self.ys.min(), self.xs - self.xs.min()] = True
        return box

    def shape(self) -> str:
        """By how the box is filled: its centre, its corners, the middles of its upper half's sides."""
        box = self.filled()
        height, width = box.shape
        share = box.mean()
        if not box[height // 2, width // 2]:
            return "ring"
        if share > 0.9:
            return "square"
        upper, lower = box[: height // 2].sum(), box[(height + 1) // 2 :].sum()
        if lower > 1.8 * upper:
            return "triangle"
        if share > 0.7:
            return "circle"
        return "cross" if box[0].sum() > width / 5 + 1 else "star"


def blobs(picture: NDArray[np.uint8]) -> list[Blob]:
    left = (np.abs(picture.astype(int) - picture[0, 0].astype(int)) > 3).any(-1)
    found = []
    while left.any():
        blob = np.zeros_like(left)
        blob[tuple(np.argwhere(left)[0])] = True
        size = 0
        while blob.sum() > size:  # grows by one pixel a turn, within what is not ground
            size = blob.sum()
            wide = np.pad(blob, 1)
            blob = left & np.logical_or.reduce([wide[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)])
        left &= ~blob
        found.append(Blob(np.argwhere(blob), picture))
    return found


def holds(relation: str, one: Blob, other: Blob) -> bool:
    return {
        "above": one.ys.max() < other.ys.min(),
        "below": one.ys.min() > other.ys.max(),
        "left of": one.xs.max() < other.xs.min(),
        "right of": one.xs.min() > other.xs.max(),
    }[relation]


@pytest.mark.parametrize("split", SPLITS)
def test_captions_are_true_of_the_pixels(split: scenes.Split) -> None:
    made = scenes.pictures(split, 100)
    for picture, captions in zip(made.pixels, made.captions, strict=True):
        seen = blobs(picture)
        for caption in captions:
            told = SENTENCE.fullmatch(caption)
            assert told, caption
            number, size, colour, shape, relation, _, *second = told.groups()
            first = [b for b in seen if (b.size, b.colour, b.shape()) == (size, colour, shape)]
            if relation is None:
                assert len(seen) == len(first) == NUMBERS[number], caption
            else:
                other = [b for b in seen if (b.size, b.colour, b.shape()) == tuple(second)]
                assert len(seen) == 2, caption
                assert len(first) == len(other) == 1, (caption, [(b.size, b.colour, b.shape()) for b in seen])
                assert holds(relation, first[0], other[0]), caption


def test_scenes_never_change() -> None:
    """Models were trained and measured on exactly these pictures."""
    digest = hashlib.sha256()
    for split in SPLITS:
        made = scenes.pictures(split, 40)
        digest.update(made.pixels.tobytes() + repr(made.captions).encode() + made.groups.astype("<i8").tobytes())
    assert digest.hexdigest() == "24615904379802e147247d7d8bc212b65a93869abc10d5768a7726a429467c06"


def test_more_scenes_leave_the_first_as_they_are() -> None:
    few, many = scenes.pictures("test", 5), scenes.pictures("test", 9)
    assert np.array_equal(few.pixels, many.pixels[:5])
    assert few.captions == many.captions[:5]


def test_no_picture_is_in_two_splits() -> None:
    seen = [{picture.tobytes() for picture in scenes.pictures(split, 300).pixels} for split in SPLITS]
    assert sum(map(len, seen)) == len(set().union(*seen))


def test_held_out_pairs_are_in_unseen_and_only_there() -> None:
    def pairs(split: scenes.Split, index: int) -> set[tuple[str, str]]:
        return {(one.colour, one.shape) for one in scenes.scene(split, index).objects}

    for index in range(1_000):
        assert not pairs("train", index) & scenes.HELD_OUT
        assert not pairs("validation", index) & scenes.HELD_OUT
        assert not pairs("test", index) & scenes.HELD_OUT
        assert pairs("unseen", index) & scenes.HELD_OUT
    # Every colour and shape of a held-out pair is known from other pairs.
    trained = set().union(*(pairs("train", index) for index in range(1_000)))
    assert trained == {(c, s) for c in PLAIN for s in SHAPES} - scenes.HELD_OUT


def test_groups_are_meanings() -> None:
    meanings: dict[int, frozenset[str]] = {}
    for split in SPLITS:
        for index in range(1_000):
            shown = scenes.scene(split, index)
            captions = frozenset(shown.captions())
            assert meanings.setdefault(shown.group(), captions) == captions
    assert len(set(meanings.values())) == len(meanings)


@pytest.mark.parametrize("shape", SHAPES)
def test_masks_are_symmetric_and_reach_their_radius(shape: str) -> None:
    cover = mask(shape, 8)
    assert cover.shape == (16, 16)
    assert cover.max() == 16
    assert np.array_equal(cover, cover[:, ::-1])
    assert cover[:, 1:-1].any(0).all()


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ModelError, match="no split 'dev'; there are train, validation, test, unseen"):
        scenes.pictures("dev")  # type: ignore[arg-type]
