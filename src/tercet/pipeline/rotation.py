"""A source whose linears read rotated inputs (`rotate: true` in a recipe; `tercet.program.hadamard`).

Of a linear W H is calibrated, trained and stored, and it reads H x: the same function, but matrices and activations
have fewer outliers to round. The rest of the pipeline treats such a source like any other; config.json of the packed
folder says that it is rotated (`model.tercet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tercet.families.transforms import transformed
from tercet.program.hadamard import rotated
from tercet.sources import Source

__all__ = ["RotatedSource", "rotated_source"]


@dataclass(frozen=True)
class RotatedSource(Source):
    """A source with W H for each W of a linear in a block; its programs rotate what these linears read.

    `pretrained` is the original itself, which computes the same.
    """

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        return _RotatedTensors(super().tensors(), self.model.rotations)


def rotated_source(source: Source) -> RotatedSource:
    """The same model with rotated inputs, in blocks as large as the widths allow. Raises ModelError as families do."""
    config = source.config
    for part in source.model.parts:
        config = transformed(config, source.model, part, {"rotate": True})
    return RotatedSource(source.name, source.folder, config, source.fingerprint, source.origin)


class _RotatedTensors(Mapping[str, NDArray[np.float32]]):
    """`blocks`: columns of a block of the rotation, by name of the matrix."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], blocks: Mapping[str, int]) -> None:
        self._tensors, self._blocks = tensors, blocks

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        if name not in self._blocks:
            return tensor
        made: NDArray[np.float32] = rotated(np.array(tensor, np.float32), self._blocks[name]).astype(np.float32)
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
