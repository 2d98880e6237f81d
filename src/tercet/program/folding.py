"""Rotations that cost nothing at run time: folded into the weights on both sides of what they rotate.

    residual stream   x H instead of x: what writes it writes H y, what reads it through an RMSNorm reads x H again
    heads             v H instead of v, per head: attention mixes values only, so the matrix behind it reads a H

An RMSNorm's length does not change under H, but its gain g does not commute with it, so that it goes into the linears
behind it: W (g * x / rms) = (W diag(g) H) (x H / rms). One transform is left behind the look-up and one in front of the
last norm, whose gain stays: a tied table is then what it was (SpinQuant, QuaRot: 2405.16406, 2404.00456).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tercet.program.hadamard import rotated, widest_block
from tercet.program.program import Op, Program

__all__ = ["Folded", "Folding", "folding"]

Floats = NDArray[np.float32]


@dataclass
class Folding:
    """What becomes of a program's tensors.

    Attributes:
        stream: columns of a block of the residual stream's rotation.
        gains: for each linear that reads a norm of the stream, the norm's weight.
        offsets: for each of these norms, what is added to its stored weight.
        writes: linears, and their biases, whose results are added to the stream.
        values: for each linear of values, and its bias, columns of a block of the heads' rotation.
        outputs: likewise for each linear that reads what attention gives.
    """

    stream: int
    gains: dict[str, str] = field(default_factory=dict)
    offsets: dict[str, float] = field(default_factory=dict)
    writes: set[str] = field(default_factory=set)
    values: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Buffer:
    """What a buffer holds: the stream, a norm of it, results of linears (or their sum), what attention gives."""

    kind: str = "other"
    ops: tuple[Op, ...] = ()


def folding(program: Program) -> Folding | None:
    """How a decoder's rotations are folded; None where something stands between a linear and the stream, or a head,
    that does not commute with them: a LayerNorm, a norm or a clip of what is added."""
    first, *middle, norm, head = program.ops
    width = program.widths[first.output]
    found = Folding(widest_block(width))
    holds = {first.output: _Buffer("stream")}
    for op in middle:
        inputs = [holds.get(name, _Buffer()) for name in op.inputs]
        made = _step(op, inputs, width, found)
        if made is None:
            return None
        holds[op.output] = made
    plain = norm.kind == "rmsnorm" and norm.dim == width and holds[norm.inputs[0]].kind == "stream"
    return found if first.kind == "embed" and head.kind == "linear" and plain else None


def _step(op: Op, inputs: list[_Buffer], width: int, found: Folding) -> _Buffer | None:
    """What the operation's result is; None where it cannot be."""
    kinds = [buffer.kind for buffer in inputs]
    if op.kind == "linear" and kinds[0] != "stream":
        _read(op, inputs[0], found)
        return _Buffer("made", (op,))
    if op.kind == "rmsnorm" and kinds == ["stream"] and op.dim == width:
        found.offsets[op.weight] = op.offset
        return _Buffer("norm", (op,))
    if op.kind == "attention" and kinds[2] == "made":
        return _values(op, inputs[2].ops, found)
    if op.kind == "add" and sorted(kinds) in (["made", "made"], ["made", "stream"]):
        written = [each for buffer in inputs for each in buffer.ops]
        if "stream" not in kinds:
            return _Buffer("made", tuple(written))
        found.writes.update(name for each in written for name in (each.weight, each.bias) if name)
        return _Buffer("stream")
    return None if {"stream", "norm", "attended"} & set(kinds) else _Buffer()


def _read(op: Op, source: _Buffer, found: Folding) -> None:
    if source.kind == "norm":
        found.gains[op.weight] = source.ops[0].weight
    elif source.kind == "attended":
        found.outputs[op.weight] = widest_block(source.ops[0].head_dim)


def _values(op: Op, made: tuple[Op, ...], found: Folding) -> _Buffer | None:
    if len(made) != 1:
        return None
    found.values.update({name: widest_block(op.head_dim) for name in (made[0].weight, made[0].bias) if name})
    return _Buffer("attended", (op,))


class Folded(Mapping[str, Floats]):
    """A program's tensors with its rotations folded in: float32, each made when it is asked for."""

    def __init__(self, tensors: Mapping[str, Floats], folding: Folding) -> None:
        self._tensors, self._folding = tensors, folding

    def __getitem__(self, name: str) -> Floats:
        tensor, how = self._tensors[name], self._folding
        if name in how.offsets:
            return np.full_like(tensor, 1 - how.offsets[name])
        changed = name in how.gains or name in how.outputs or name in how.values or name in how.writes
        return self._folded(name).astype(np.float32) if changed else tensor

    def _folded(self, name: str) -> NDArray[np.float64]:
        tensor, how = np.array(self._tensors[name], np.float64), self._folding
        if name in how.gains:
            norm = how.gains[name]
            gain = np.array(self._tensors[norm], np.float64) + how.offsets[norm]
            tensor = rotated(tensor * gain, how.stream)
        if name in how.outputs:
            tensor = rotated(tensor, how.outputs[name])
        if name in how.values:
            tensor = rotated(tensor.T, how.values[name]).T
        if name in how.writes:
            tensor = rotated(tensor.T, how.stream).T
        made: NDArray[np.float64] = tensor
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
