"""Flat shapes with soft edges on a plain ground: what `scenes` shows.

A shape is an inequality on the square -1..1; a mask of radius r counts how many of 4 x 4 points of each pixel fulfil
it, in sixteenths. Only +, -, *, comparisons: the same bits everywhere. Masks are made once for each shape and radius.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLOURS", "SHAPES", "SIDE", "blank", "draw", "mask"]

SIDE = 64
POINTS = 4  # a pixel's side
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 50),
    "purple": (150, 50, 180),
    "orange": (245, 140, 30),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
STAR = 0.6  # of a four-pointed star: where its waist is, on both axes

Plane = NDArray[np.float64]


def blank(level: int) -> NDArray[np.uint8]:
    """A grey ground, uint8[64, 64, 3]."""
    return np.full((SIDE, SIDE, 3), level, np.uint8)


def draw(ground: NDArray[np.uint8], shape: str, centre: tuple[int, int], radius: int, rgb: tuple[int, ...]) -> None:
    """Paints one shape into `ground` (x to the right, y down); all of it must lie within."""
    x, y = centre
    part = ground[y - radius : y + radius, x - radius : x + radius].astype(np.int32)
    cover = mask(shape, radius)[..., None].astype(np.int32)
    mixed = (part * (POINTS * POINTS - cover) + np.array(rgb, np.int32) * cover) // (POINTS * POINTS)
    ground[y - radius : y + radius, x - radius : x + radius] = mixed.astype(np.uint8)


@lru_cache(maxsize=256)
def mask(shape: str, radius: int) -> NDArray[np.uint8]:
    """How many sixteenths of each pixel the shape covers: uint8[2*radius, 2*radius], 0..16."""
    count = 2 * radius * POINTS
    points = (np.arange(count) * 2 + 1 - count) / count  # symmetric about 0
    inside = _inside(shape, points[None, :], points[:, None])
    cover: NDArray[np.uint8] = inside.reshape(2 * radius, POINTS, 2 * radius, POINTS).sum((1, 3)).astype(np.uint8)
    return cover


def _inside(shape: str, x: Plane, y: Plane) -> NDArray[np.bool_]:
    """Which points of the square belong to the shape; y grows downwards."""
    far = x * x + y * y
    across, along = np.abs(x), np.abs(y)
    if shape == "circle":
        return far <= 1.0
    if shape == "ring":
        return (far <= 1.0) & (far >= 0.3)
    if shape == "square":
        return (across <= 0.86) & (along <= 0.86)
    if shape == "triangle":
        return (across * 2 <= y + 0.9) & (y <= 0.85)
    if shape == "cross":
        return ((across <= 0.32) & (along <= 1.0)) | ((along <= 0.32) & (across <= 1.0))
    waist = STAR / 2  # four slim points: the line from (1, 0) to (waist, waist), and its mirror images
    big, small = np.maximum(across, along), np.minimum(across, along)
    return small * (1 - waist) <= waist * (1 - big)
