"""A source whose linears read rotated inputs (`rotate` in a recipe): matrices and activations have fewer outliers.

Of a linear W H is calibrated, trained and stored, and it reads H x: the same function. All inputs are rotated at run
time; or, folded into the weights where the family allows it (`tercet.program.folding`), those of the MLPs' last linears
alone, behind the nonlinearity. The rest of the pipeline treats such a source
like any other; config.json of the packed folder says that it is rotated (`model.tercet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tercet.families.transforms import transformed
from tercet.program.folding import Folded, Folding, folding
from tercet.program.hadamard import rotated
from tercet.recipe import Rotate
from tercet.sources import Source

__all__ = ["RotatedSource", "rotated_source"]


@dataclass(frozen=True)
class RotatedSource(Source):
    """A source with W H for each W of a linear in a block; its programs rotate what these linears read, where the
    weights in front do not.

    `pretrained` is the original itself, which computes the same.
    """

    foldings: tuple[Folding, ...] = field(default=(), compare=False)

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        tensors = super().tensors()
        for each in self.foldings:
            tensors = Folded(tensors, each)
        return _RotatedTensors(tensors, self.model.rotations)


def rotated_source(source: Source, rotate: Rotate = True, *, table: bool = True) -> RotatedSource:
    """The same model, rotated in blocks as large as the widths allow. Raises ModelError as families do.

    Args:
        rotate: true: every linear's input at run time; "folded": folded into the weights as far as that goes.
        table: a language model's embedding and head too.
    """
    config, foldings = source.config, []
    for part, program in source.model.parts.items():
        found = folding(program) if rotate == "folded" else None
        words: dict[str, object] = {"rotate": True, **({"table": True} if table and program.gives == "logits" else {})}
        if found is not None:
            foldings.append(found)
            words["stream"] = True
        config = transformed(config, source.model, part, words)
    return RotatedSource(
        source.name, source.folder, config, source.fingerprint, source.origin, foldings=tuple(foldings)
    )


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
