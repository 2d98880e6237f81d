"""A pretrained model of pictures and texts, opened once: towers, tensors, and how it reads pictures and texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet import sources
from tercet.data.pairs import Reader
from tercet.program import Model
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.preprocess import Preprocessor

__all__ = ["ClipModel"]


@dataclass(frozen=True, eq=False)
class ClipModel:
    """Attributes: source; towers; tensors: by the towers' names, float32, read when they are asked for."""

    source: sources.Source
    towers: Model
    tensors: Mapping[str, NDArray[np.float32]]

    @classmethod
    def open(cls, source: sources.Source) -> ClipModel:
        """Raises ModelError where it is no model of pictures and texts that we know."""
        return cls(source, source.model, source.tensors())

    def reader(self) -> Reader:
        """As the packed folder will read: by the files that go into it."""
        labels = CaptionTokenizer.open(self.source.folder, self.towers.text.context)
        return Reader(self.towers, Preprocessor.from_config(self.source.preprocessor()), labels)

    def files(self) -> dict[str, bytes]:
        """What a packed folder has beside the weights, by name.

        Raises FormatError where the folder does not say how pictures and texts are read.
        """
        return self.source.tokenizer_files()

    @property
    def float_mb(self) -> float:
        """10^6 bytes of the weights in float32 and the other files."""
        weights = sum(4 * int(np.prod(weight.shape)) for weight in self.towers.weights.values())
        return (weights + sum(map(len, self.files().values()))) / 1e6
