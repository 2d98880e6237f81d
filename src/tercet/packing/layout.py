"""What the packed formats have in common: codes go into words, words of 16 rows into tiles.

A format (one file each) is a `Layout`: how many columns a word holds, and how a word is written and read. This module
does what is the same for all: groups, padding, and the order of words in memory (docs/format.md, "Packed layouts").

    codes i8[out, in] -> i8[rows, tiles, columns] padded -> words[rows, tiles] -> u8[rows/16, tiles, 64]

Rows go through in blocks of about a million weights, so that temporaries stay small whatever the matrix is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.tensor import GROUP_SIZES

__all__ = ["ROWS", "Layout"]

ROWS = 16
BLOCK = 1 << 20

Codes = NDArray[np.int8]
Words = NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """One packed format.

    Attributes:
        columns: codes a word holds.
        padding: the code of padding columns and rows.
        encode: codes int8[rows, tiles, columns] -> words[rows, tiles].
        decode: the way back; invalid words give any codes.
        invalid: words -> number of codes in them that no encoder writes.
        tiled: uint32 words in tiles of 16 rows; else uint8 words, row-major.
        aligned: a group starts a new word; else groups do not matter to the words.
        groups: group sizes it can store, beside the row.
    """

    columns: int
    padding: int
    encode: Callable[[Codes], Words]
    decode: Callable[[Words], Codes]
    invalid: Callable[[Words], int]
    tiled: bool = True
    aligned: bool = True
    groups: tuple[int, ...] = GROUP_SIZES

    def code_shape(self, rows: int, cols: int, group: int) -> tuple[int, ...]:
        """Shape of the u8 array that holds a matrix."""
        groups, _, tiles = self._split(cols, group)
        return (-(-rows // ROWS), groups * tiles, 4 * ROWS) if self.tiled else (rows, groups * tiles)

    def scale_shape(self, rows: int, cols: int, group: int) -> tuple[int, ...]:
        """Shape of the float16 array of its scales, and of its shifts."""
        return (-(-rows // ROWS), cols // group, ROWS) if self.tiled else (rows, cols // group)

    def pack(self, codes: Codes, group: int) -> NDArray[np.uint8]:
        rows, cols = codes.shape
        packed = np.empty(self.code_shape(rows, cols, group), np.uint8)
        groups, width, tiles = self._split(cols, group)
        for first, last in self._blocks(rows, cols):
            count = last - first
            padded = np.full((self._whole(count), groups, tiles * self.columns), self.padding, np.int8)
            padded[:count, :, :width] = codes[first:last].reshape(count, groups, width)
            words = self.encode(padded.reshape(len(padded), groups * tiles, self.columns))
            if self.tiled:
                words = words.reshape(-1, ROWS, groups * tiles).transpose(0, 2, 1)
                packed.view("<u4")[first // ROWS : -(-last // ROWS)] = words
            else:
                packed[first:last] = words
        return packed

    def unpack(self, packed: NDArray[np.uint8], shape: tuple[int, int], group: int) -> Codes:
        rows, cols = shape
        groups, width, _ = self._split(cols, group)
        codes = np.empty((rows, groups, width), np.int8)
        for first, last in self._blocks(rows, cols):
            words = self._words(packed, first, last)
            codes[first:last] = self.decode(words).reshape(len(words), groups, -1)[: last - first, :, :width]
        return codes.reshape(rows, cols)

    def count_invalid(self, packed: NDArray[np.uint8], shape: tuple[int, int], group: int) -> int:
        """Codes that no encoder writes, and padding that is not the padding code."""
        rows, cols = shape
        groups, width, tiles = self._split(cols, group)
        count = 0
        for first, last in self._blocks(rows, cols):
            words = self._words(packed, first, last)
            count += self.invalid(words)
            count += int(np.count_nonzero(self.decode(words[last - first :]) != self.padding))
            if width < tiles * self.columns:
                tails = words[: last - first].reshape(last - first, groups, tiles)[:, :, -1:]
                codes = self.decode(np.ascontiguousarray(tails.reshape(last - first, groups)))
                count += int(np.count_nonzero(codes[:, :, width - (tiles - 1) * self.columns :] != self.padding))
        return count

    def _split(self, cols: int, group: int) -> tuple[int, int, int]:
        """How a row falls apart for the words: groups, columns of one, words of one."""
        width = group if self.aligned else cols
        return cols // width, width, -(-width // self.columns)

    def _whole(self, rows: int) -> int:
        return -(-rows // ROWS) * ROWS if self.tiled else rows

    def _blocks(self, rows: int, cols: int) -> Iterator[tuple[int, int]]:
        step = max(BLOCK // cols // ROWS, 1) * ROWS
        for first in range(0, rows, step):
            yield first, min(first + step, rows)

    def _words(self, packed: NDArray[np.uint8], first: int, last: int) -> Words:
        """Words [rows, tiles] of whole tiles: rows past `last` are padding."""
        if not self.tiled:
            return packed[first:last]
        tiles = packed[first // ROWS : -(-last // ROWS)].view("<u4").transpose(0, 2, 1)
        return tiles.reshape(-1, packed.shape[1])
