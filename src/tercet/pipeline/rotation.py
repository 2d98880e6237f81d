"""A source whose linears read rotated inputs (`rotate: true` in a recipe; `tercet.program.hadamard`).

What is calibrated, trained and stored of a linear is W H, and H x is computed before it: the same model, whose matrices
and activations have fewer outliers to round. Everything else in the pipeline takes it for any other source; config.json
of the packed folder says what it is (`model.tercet`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from tercet.modules.rotation import rotate
from tercet.program.hadamard import rotated
from tercet.sources import Source

__all__ = ["RotatedSource", "rotated_source"]


@dataclass(frozen=True)
class RotatedSource(Source):
    """A source with W H for each W of a linear in a block, and H x for its x."""

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        return _RotatedTensors(super().tensors(), self.model.text.rotations)

    def pretrained(self) -> PreTrainedModel:
        model = super().pretrained()
        _rotate_linears(model, self.model.text.rotations)
        return model


def rotated_source(source: Source) -> RotatedSource:
    """The same model with rotated inputs, in blocks as large as the widths allow. Raises ModelError as families do."""
    config = {**source.config, "tercet": {**source.config.get("tercet", {}), "rotate": True}}
    return RotatedSource(source.name, source.folder, config, source.fingerprint, source.origin)


class _RotatedTensors(Mapping[str, NDArray[np.float32]]):
    """`blocks`: columns of a block of the rotation, by name of the matrix."""

    def __init__(self, tensors: Mapping[str, NDArray[np.float32]], blocks: Mapping[str, int]) -> None:
        self._tensors, self._blocks = tensors, blocks

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        if name not in self._blocks:
            return tensor
        turned: NDArray[np.float32] = rotated(np.array(tensor, np.float32), self._blocks[name]).astype(np.float32)
        return turned

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _rotate_linears(model: nn.Module, blocks: Mapping[str, int]) -> None:
    last: list[tuple[Tensor, int, Tensor]] = []  # q, k and v, gate and up read the same input: it is rotated once

    def turn(x: Tensor, block: int) -> Tensor:
        if not last or last[0][0] is not x or last[0][1] != block:
            last[:] = [(x, block, rotate(x, block))]
        return last[0][2]

    model.register_forward_hook(lambda *_: last.clear())
    for name, block in blocks.items():
        module = model.get_submodule(name.rpartition(".")[0])
        weight = module.get_parameter("weight")
        weight.data = rotated(weight.data.float(), block).to(weight.dtype)

        def hook(_: nn.Module, args: tuple[Tensor, ...], block: int = block) -> tuple[Tensor, ...]:
            return (turn(args[0], block), *args[1:])

        module.register_forward_pre_hook(hook)
