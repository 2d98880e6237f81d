"""A model's programs as one torch module: student, teacher and float model, whatever the medium.

    ids int64[n, length] -> hidden float[n, length, width], what the head reads          a language model
    ids, or patches float[n, patches, columns] -> embedding float32[n, dim]              a part of an image-text model

Parameters have the tensors' own names, so that quantizers sit on them as on those of any module
(`tercet.quantizers.quantize_`). Each transformer block is a submodule that is called: what shards parameters, or
computes blocks again in the backward pass, takes hold of those. Inputs of linears that ship in integers are rounded as
the engine does it; rotations and clips are operations of the program. No class of transformers is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tercet.modules.activations import Shared
from tercet.modules.ops import Buffers, counted, run
from tercet.modules.segments import Segment, segments
from tercet.program import Model, Op, Program
from tercet.recipe import Activations

__all__ = ["Block", "Passed", "ProgramModule"]


class Passed(NamedTuple):
    """What a pass through a part gives.

    Attributes:
        result: what the head reads, float[n, length, width]; of a part that ends in rows those rows, likewise; or the
            embedding, float32[n, dim], not normalised.
        blocks: what comes out of each transformer block, [tokens that count, width], where it was asked for.
        taps: results of the linears that were asked for, [n, length, columns], by the weight's name.
    """

    result: Tensor
    blocks: Sequence[Tensor]
    taps: Mapping[str, Tensor]


class Block(nn.Module):
    """A transformer block: a place for its parameters, called with the buffers it reads."""

    def forward(self, owner: ProgramModule, segment: Segment, buffers: Buffers, taps: Collection[str]) -> Buffers:
        return owner.execute(segment, buffers, taps)


class ProgramModule(nn.Module):
    """Attributes: description: what it runs; recomputes: whether blocks are computed again in the backward pass.

    Args:
        tensors: float32 arrays of everything the model reads, by full name.
    """

    def __init__(self, model: Model, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__()
        self.description = model
        self.recomputes = False
        self._activations: Activations = "a16"
        self._groups: Mapping[str, int] = {}
        self._weights = _Weights()
        self._segments = {part: segments(program) for part, program in model.parts.items()}
        for path in (segment.path for found in self._segments.values() for segment in found if segment.path):
            _module(self, path, Block)
        for name in model.weights:
            path, _, key = name.rpartition(".")
            module = _module(self, path, nn.Module)
            module.register_parameter(key, nn.Parameter(torch.from_numpy(np.array(tensors[name], np.float32))))
            self._weights.places[name] = module, key

    def round_activations(self, groups: Mapping[str, int], kind: Activations) -> None:
        """Round what linears read from now on; `groups`: by name of the weight, columns that share a scale."""
        self._groups, self._activations = dict(groups), kind

    def extra_repr(self) -> str:
        groups = sorted(set(self._groups.values()))
        return f"{self.description.family}, activations={self._activations}, groups={groups}"

    @property
    def scale(self) -> Tensor:
        """The exponentiated logit scale of an image-text model."""
        return self._weights[self.description.scale].exp()

    @property
    def bias(self) -> Tensor | None:
        """Its logit bias; None where it has none."""
        return self._weights[self.description.bias] if self.description.bias else None

    def weight(self, name: str) -> Tensor:
        """A tensor as the model computes with it."""
        return self._weights[name]

    def head(self) -> tuple[Tensor, Tensor | None]:
        """Weight [vocab, width] and bias of a language model's last linear."""
        last = self.description.text.ops[-1]
        return self._weights[last.weight], self._weights.get(last.bias)

    def forward(self, part: str, rows: Tensor, *, blocks: bool = False, taps: Collection[str] = ()) -> Passed:
        """Runs a part.

        Args:
            rows: ids, or patches as of `tercet.program.patches`. Columns of ids that no embedding depends on are left
                out.
            blocks, taps: what else of the inside is wanted (`Passed`).
        """
        program, these = self.description.parts[part], counted(self.description.parts[part], rows)
        if isinstance(these, Tensor):
            rows = rows[:, : int(these.any(0).sum())]
            these = these[:, : rows.shape[1]]
        buffers: Buffers = {program.reads: rows}
        after, tapped = list[Tensor](), dict[str, Tensor]()
        for segment in self._segments[part]:
            buffers = self._called(segment, buffers, taps)
            tapped.update({name: buffers.pop(name) for name in taps if name in buffers})
            if blocks and segment.ends_block:
                after.append(buffers[segment.ops[-1].output][these].flatten(0, -2))
        if program.gives == "logits":
            return Passed(buffers[program.ops[-1].inputs[0]], after, tapped)
        if program.gives == "rows":
            return Passed(buffers["rows"], after, tapped)
        return Passed(buffers["embedding"][:, 0].float(), after, tapped)

    def _called(self, segment: Segment, buffers: Buffers, taps: Collection[str]) -> Buffers:
        if not segment.path:
            return self.execute(segment, buffers, taps)
        block = self.get_submodule(segment.path)
        if self.recomputes and torch.is_grad_enabled():
            made: Buffers = checkpoint(block, self, segment, buffers, taps, use_reentrant=False)
        else:
            made = block(self, segment, buffers, taps)
        return made

    def execute(self, segment: Segment, buffers: Buffers, taps: Collection[str] = ()) -> Buffers:
        """The buffers that are read behind a segment, and the tapped results of its linears."""
        buffers, shared = dict(buffers), Shared(self._activations)
        found: Buffers = {}
        for op in segment.ops:
            self._run(segment.program, op, buffers, shared)
            if op.weight in taps:
                found[op.weight] = buffers[op.output]
        return {**{name: buffers[name] for name in segment.live}, **found}

    def _run(self, program: Program, op: Op, buffers: Buffers, shared: Shared) -> None:
        if op.kind == "linear" and op.weight in self._groups:
            x = shared(buffers[op.inputs[0]], self._groups[op.weight])
            buffers[op.output] = F.linear(x, self._weights[op.weight], self._weights.get(op.bias))
        else:
            run(program, op, buffers, self._weights)


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


def _module(root: nn.Module, path: str, kind: type[nn.Module]) -> nn.Module:
    """The submodule of this path, made as `kind` if need be; those on the way to it are plain ones."""
    module, parts = root, path.split(".") if path else []
    for index, part in enumerate(parts, start=1):
        if part not in module._modules:
            module.add_module(part, kind() if index == len(parts) else nn.Module())
        module = module.get_submodule(part)
    return module
