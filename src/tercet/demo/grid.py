"""What a search finds, as one picture: a line for each text, the best pictures to its right, the best first."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["grid", "nearest"]

SIDE, MARGIN, WORDS = 72, 6, 300  # pixels: of a picture, between them, for the text


def nearest(texts: NDArray[np.float32], pictures: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """int64[texts, count]: numbers of the pictures nearest to each text by cosine; of equal ones the first."""
    near = texts @ (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).T
    return np.argsort(-near, 1, kind="stable")[:, :count]


def grid(texts: Sequence[str], found: Sequence[Sequence[NDArray[np.uint8]]]) -> bytes:
    """A PNG; `found` has the pictures of each text, uint8[height, width, 3] of any size."""
    from PIL import Image, ImageDraw

    columns = max(len(line) for line in found)
    step = SIDE + MARGIN
    sheet = Image.new("RGB", (WORDS + columns * step + MARGIN, len(texts) * step + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (text, pictures) in enumerate(zip(texts, found, strict=True)):
        top = MARGIN + row * step
        draw.text((MARGIN, top + SIDE // 2 - 6), text, fill="black")
        for column, pixels in enumerate(pictures):
            picture = Image.fromarray(np.ascontiguousarray(pixels))
            picture.thumbnail((SIDE, SIDE))
            sheet.paste(picture, (WORDS + column * step, top))
    data = io.BytesIO()
    sheet.save(data, "PNG")
    return data.getvalue()
