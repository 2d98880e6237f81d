"""Two towers as one module that can be trained: a program's operations on parameters with the tensors' own names.

    patches float32[n, patches, columns], or ids int64[n, length]  ->  embedding float32[n, dim], not normalised

Quantizers sit on the parameters as on those of any module (`tercet.quantizers.quantize_`), and inputs of linears that
ship in integers are quantized as the engine does it. No class of transformers is needed, so that whatever a family's
program describes can be trained: a patch embedding is the matrix it ships as, and so are a pooling's q, k and v.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tercet.modules.activations import Shared
from tercet.modules.ops import Buffers, counted, run
from tercet.program import Model, Program
from tercet.program.blocks import block_ops
from tercet.recipe import Activations

__all__ = ["Encoded", "TowersModule"]


class Encoded(NamedTuple):
    """What a tower makes of its rows.

    Attributes:
        embedding: float32[n, dim], not normalised.
        blocks: what comes out of each transformer block, float32[tokens that count, width], where it was asked for.
    """

    embedding: Tensor
    blocks: Sequence[Tensor]


class TowersModule(nn.Module):
    """Attributes: towers, scale (the exponentiated logit scale), bias (0 where the model has none).

    Args:
        tensors: float32 arrays of every weight of the towers, by full name.
    """

    def __init__(self, towers: Model, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.towers = towers
        self.activations: Activations = "a16"
        self.groups: Mapping[str, int] = {}
        self._weights = _Weights()
        for name in towers.weights:
            path, _, key = name.rpartition(".")
            module = _module(self, path)
            module.register_parameter(key, nn.Parameter(torch.from_numpy(np.array(tensors[name], np.float32))))
            self._weights.places[name] = module, key
        self._ends = _block_ends(towers.image), _block_ends(towers.text)

    def quantize_activations(self, groups: Mapping[str, int], kind: Activations) -> None:
        """Quantize what linears read from now on; `groups`: by name, columns that share a scale."""
        self.groups, self.activations = dict(groups), kind

    @property
    def scale(self) -> Tensor:
        return self._weights[self.towers.scale].exp()

    @property
    def bias(self) -> Tensor | None:
        return self._weights[self.towers.bias] if self.towers.bias else None

    def encode_patches(self, patches: Tensor, *, blocks: bool = False) -> Encoded:
        """float32[n, patches, columns] as of `tercet.program.patches`."""
        return self._encode(self.towers.image, patches, self._ends[0] if blocks else set())

    def encode_ids(self, ids: Tensor, *, blocks: bool = False) -> Encoded:
        """int64[n, length]; columns that no embedding depends on are left out."""
        these = counted(self.towers.text, ids)
        if isinstance(these, Tensor):
            ids = ids[:, : int(these.any(0).sum())]
        return self._encode(self.towers.text, ids, self._ends[1] if blocks else set())

    def _encode(self, program: Program, rows: Tensor, ends: set[int]) -> Encoded:
        buffers: Buffers = {program.ops[0].inputs[0]: rows}
        found, these = list[Tensor](), counted(program, rows)
        shared = Shared(self.activations)
        for index, op in enumerate(program.ops):
            if op.kind == "linear" and op.weight in self.groups:
                x = shared(buffers[op.inputs[0]], self.groups[op.weight])
                buffers[op.output] = F.linear(x, self._weights[op.weight], self._weights.get(op.bias))
            else:
                run(program, op, buffers, self._weights)
            if index in ends:
                found.append(buffers[op.output][these].flatten(0, -2))
        return Encoded(buffers["embedding"][:, 0].float(), found)


class _Weights(Mapping[str, Tensor]):
    """A module's tensors by full name, each computed by its quantizer, if it has one, when it is asked for."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[nn.Module, str]] = {}

    def __getitem__(self, name: str) -> Tensor:
        module, key = self.places[name]
        tensor: Tensor = getattr(module, key)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def _module(root: nn.Module, path: str) -> nn.Module:
    """The submodule of this path, made if need be."""
    module = root
    for part in path.split(".") if path else ():
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    return module


def _block_ends(program: Program) -> set[int]:
    """Indices of the last operations of the transformer blocks; a pooling head, the last of `blocks`, is none."""
    ends = set(accumulate(len(ops) for ops in block_ops(program)))
    return {end - 1 for end in ends if program.ops[end - 1].output != "embedding"}
