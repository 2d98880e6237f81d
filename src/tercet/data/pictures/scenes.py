"""Rendered scenes whose captions are exactly true: colour x shape x size x count, and pairs in a spatial relation.

    "three small green triangles"      "a large red circle above a small blue ring"

Half of the scenes show 1-4 like objects, half two objects one above, below, left or right of the other, and each such
scene has both of its captions ("a ring below a circle" is the same scene). Scene `index` of a split depends on split
and index alone: more scenes never change the first ones, and only the arithmetic of IEEE doubles draws them.

Six of the 48 pairs of colour and shape never occur in train, validation and test; in every scene of `unseen` one does.
Whoever knows "red square" and "green circle" but never saw a "red circle" has to compose.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tercet.data.pictures.base import Pictures, Split
from tercet.data.pictures.drawing import COLOURS, SHAPES, SIDE, blank, draw
from tercet.errors import ModelError

__all__ = ["HELD_OUT", "Object", "Scene", "pictures", "render", "scene"]

T = TypeVar("T")

COUNTS: dict[Split, int] = {"train": 30_000, "validation": 2_000, "test": 5_000, "unseen": 5_000}
SIZES = {"small": (7, 8), "large": (12, 13)}  # radius in pixels, first and last
NUMBERS = ("a", "two", "three", "four")
RELATIONS = {"above": "below", "left of": "right of"}  # and what the second object is to the first
HELD_OUT = frozenset({
    ("red", "circle"), ("green", "square"), ("blue", "triangle"), ("yellow", "ring"), ("purple", "star"),
    ("orange", "cross"),
})  # fmt: skip
PAIRS = [(colour, shape) for colour in COLOURS for shape in SHAPES]
KNOWN = [pair for pair in PAIRS if pair not in HELD_OUT]
PLURAL = {shape: "es" if shape.endswith("s") else "s" for shape in SHAPES}
SHADE = 15  # how far a channel of a colour may be from the plain one
CELL = SIDE // 2  # objects stand in different quarters of the picture


class Object(NamedTuple):
    """One thing in a scene: its words, and where it is (centre and radius in pixels)."""

    size: str
    colour: str
    shape: str
    x: int
    y: int
    radius: int

    def phrase(self, count: int = 1) -> str:
        """Its words behind a number: "three small green triangles"."""
        return f"{NUMBERS[count - 1]} {self.size} {self.colour} {self.shape}" + (
            PLURAL[self.shape] if count > 1 else ""
        )


class Scene(NamedTuple):
    """Objects, and the relation of the first to the second where there is one (else they are alike and counted)."""

    objects: tuple[Object, ...]
    relation: str | None

    def captions(self) -> tuple[str, ...]:
        """Every sentence that is true of it."""
        first = self.objects[0]
        if self.relation is None:
            return (first.phrase(len(self.objects)),)
        second = self.objects[1]
        return (
            f"{first.phrase()} {self.relation} {second.phrase()}",
            f"{second.phrase()} {RELATIONS[self.relation]} {first.phrase()}",
        )

    def group(self) -> int:
        """A number that is the same for scenes with the same captions, and only for them."""
        kinds = [PAIRS.index((o.colour, o.shape)) * len(SIZES) + list(SIZES).index(o.size) for o in self.objects]
        every = len(PAIRS) * len(SIZES)
        if self.relation is None:
            return (len(kinds) - 1) * every + kinds[0]
        relation = list(RELATIONS).index(self.relation)
        return len(NUMBERS) * every + (relation * every + kinds[0]) * every + kinds[1]


class _Dice:
    """Choices from Python's Mersenne Twister, whose `random()` is promised never to change (its other methods may)."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)

    def below(self, count: int) -> int:
        return int(self.random.random() * count)

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def between(self, first: int, last: int) -> int:
        return first + self.below(last - first + 1)


def scene(split: Split, index: int) -> Scene:
    """Scene number `index` of a split."""
    dice = _Dice(f"scene-{split}-{index}")
    pair = dice.pick(sorted(HELD_OUT) if split == "unseen" else KNOWN)
    if dice.below(2):
        return _alike(dice, pair)
    # In `unseen` the other object may be of either kind: what is new is the pair above.
    other = dice.pick([one for one in (PAIRS if split == "unseen" else KNOWN) if one != pair])
    ordered = (pair, other) if dice.below(2) else (other, pair)
    relation = dice.pick(list(RELATIONS))
    cell = dice.below(2)
    cells = ((cell, 0), (cell, 1)) if relation == "above" else ((0, cell), (1, cell))
    objects = tuple(_placed(dice, dice.pick(list(SIZES)), *one, at) for one, at in zip(ordered, cells, strict=True))
    return Scene(objects, relation)


def _alike(dice: _Dice, pair: tuple[str, str]) -> Scene:
    count, size = dice.between(1, len(NUMBERS)), dice.pick(list(SIZES))
    cells = [(0, 0), (0, 1), (1, 0), (1, 1)]
    taken = [cells.pop(dice.below(len(cells))) for _ in range(count)]
    return Scene(tuple(_placed(dice, size, *pair, cell) for cell in taken), None)


def _placed(dice: _Dice, size: str, colour: str, shape: str, cell: tuple[int, int]) -> Object:
    radius = dice.between(*SIZES[size])
    x, y = (at * CELL + dice.between(radius + 1, CELL - radius - 1) for at in cell)
    return Object(size, colour, shape, x, y, radius)


def render(shown: Scene, seed: str) -> NDArray[np.uint8]:
    """The picture of a scene, uint8[64, 64, 3]; `seed` shades the ground and the colours a little."""
    dice = _Dice(f"shades-{seed}")
    ground = blank(dice.between(110, 190))
    for one in shown.objects:
        rgb = tuple(min(255, max(0, level + dice.between(-SHADE, SHADE))) for level in COLOURS[one.colour])
        draw(ground, one.shape, (one.x, one.y), one.radius, rgb)
    return ground


def pictures(split: Split, count: int | None = None) -> Pictures:
    """The first `count` scenes of a split (30,000, 2,000, 5,000 or 5,000 unless said), uint8[n, 64, 64, 3].

    Raises ModelError: no such split.
    """
    if split not in COUNTS:
        raise ModelError(f"scenes have no split {split!r}; there are {', '.join(COUNTS)}")
    made = [scene(split, index) for index in range(COUNTS[split] if count is None else count)]
    pixels = np.empty((len(made), SIDE, SIDE, 3), np.uint8)
    for index, shown in enumerate(made):
        pixels[index] = render(shown, f"{split}-{index}")
    groups = np.array([shown.group() for shown in made], np.int64)
    return Pictures("scenes", pixels, tuple(shown.captions() for shown in made), groups)
