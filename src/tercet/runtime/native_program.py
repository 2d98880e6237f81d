"""A program and its tensors as the native side takes them: matrices are views of the tensors' memory.

Kernels read what is stored. Only t5, and t19 where the instruction set has no kernel for it, become t2 in anonymous
memory.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tercet import _native, kernels
from tercet.artifact import Artifact
from tercet.errors import EngineError, ModelError, QuantizeError
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Program, Weight

__all__ = ["Tensors", "converts", "native_program", "refuse_unread"]

TERNARY = ("t19", "t5")  # t2 where the kernels do not read them

Tensors = Mapping[str, PackedTensor | NDArray[np.float32]]

log = logging.getLogger(__name__)


def refuse_unread(artifact: Artifact, weights: Mapping[str, Weight]) -> None:
    """Raises ModelError where a folder holds tensors that its model never reads."""
    if unread := sorted(set(artifact.tensors) - set(weights)):
        raise ModelError(
            f"{artifact.folder}: config.json describes a model without {unread[0]} ({len(unread)} tensors unread);"
            " it was edited, or the folder is of another version: quantize again"
        )


def converts(program: Program, tensors: Tensors, isa: str | None) -> bool:
    """Whether `native_program` would put some of the program's matrices into memory of their own.

    Raises ModelError: a missing or misshapen weight; EngineError: an unknown instruction set.
    """
    formats = [fmt for fmt in TERNARY if not kernels.reads(fmt, isa)]
    found = [_fitting(name, weight, tensors) for name, weight in program.weights.items()]
    return any(isinstance(tensor, PackedTensor) and tensor.format in formats for tensor in found)


def native_program(program: Program, tensors: Tensors, isa: str | None) -> _native.ProgramBuilder:
    """What `_native.Engine` and `_native.Tower` compile; it keeps the tensors alive.

    Raises ModelError: a missing or misshapen weight; EngineError: an unknown instruction set.
    """
    builder = _native.ProgramBuilder()
    converted = []
    convert = [fmt for fmt in TERNARY if not kernels.reads(fmt, isa)]
    for name, weight in program.weights.items():
        tensor = _fitting(name, weight, tensors)
        if isinstance(tensor, PackedTensor) and tensor.format in convert:
            converted.append(name)
            tensor = pack(unpack(tensor), "t2")
        if len(weight.shape) == 2:
            builder.matrix(name, _matrix(name, tensor))
        else:
            builder.vector(name, _floats(name, tensor))
    if converted:
        log.warning("%d matrices stored as %s are converted to t2 in memory", len(converted), " or ".join(convert))
    builder.vocab(program.vocab_size)
    for name, width in _widths(program).items():
        builder.width(name, width)
    for rope in program.ropes:
        builder.rope(np.ascontiguousarray(rope.inv_freq, np.float32), rope.factor)
    for op in program.ops:
        builder.op(
            op.kind, list(op.inputs), op.output, op.weight, op.bias, op.eps, op.dim, op.offset, op.factor,
            op.heads, op.kv_heads, op.head_dim, op.window, op.layer, op.rope, op.function, op.limit, op.causal, op.row,
            op.token,
        )  # fmt: skip
    return builder


def _fitting(name: str, weight: Weight, tensors: Tensors) -> PackedTensor | NDArray[np.float32]:
    tensor = tensors.get(name)
    if tensor is None:
        raise ModelError(f"weight {name} is missing from the model's tensors")
    if tuple(tensor.shape) != tuple(weight.shape):
        raise ModelError(f"{name} has shape {list(tensor.shape)}; the model needs {list(weight.shape)}")
    return tensor


def _widths(program: Program) -> dict[str, int]:
    for first in program.ops[:1]:
        if first.inputs[:1] == ("patches",) and first.weight in program.weights:
            return {**program.widths, "patches": program.weights[first.weight].shape[1]}
    return program.widths


def _matrix(name: str, tensor: PackedTensor | NDArray[np.float32]) -> _native.Matrix:
    try:
        return kernels.matrix(tensor if isinstance(tensor, PackedTensor) else pack(tensor, "f32"))
    except (EngineError, QuantizeError) as error:
        raise ModelError(f"{name}: {error}") from None


def _floats(name: str, tensor: PackedTensor | NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(tensor, PackedTensor):
        raise ModelError(f"{name} is stored as a matrix ({tensor.format}); the model needs a vector")
    return np.ascontiguousarray(tensor, np.float32)
