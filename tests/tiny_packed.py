"""The tiny models of `tiny`, rounded and packed: what engine tests run. Plain rounding: quality does not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiny
from tercet import families
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Program
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["floats", "model"]

Tensors = dict[str, PackedTensor | NDArray[np.float32]]


def model(family: str = "llama", linear: str = "t2", group: int = 32, **overrides: Any) -> tuple[Program, Tensors]:
    """The program and its tensors: linears in `linear`, embedding and head int8; a shift on every second ternary."""
    _, config, state = tiny.model(family, **overrides)
    program = families.program(config)
    tensors: Tensors = {}
    for index, (name, weight) in enumerate(program.weights.items()):
        value = state[name].astype(np.float32)
        if weight.role == "vector":
            tensors[name] = value
        elif weight.role == "linear":
            tensors[name] = _linear(value, linear, group, shifted=index % 2 == 0)
        else:
            tensors[name] = pack(IntTensor.quantize(value, 8, group), "q8")
    return program, tensors


def floats(tensors: Tensors) -> dict[str, NDArray[np.float32]]:
    """What the packed tensors stand for."""
    return {name: _dequantize(t) if isinstance(t, PackedTensor) else t for name, t in tensors.items()}


def _dequantize(packed: PackedTensor) -> NDArray[np.float32]:
    tensor = unpack(packed)
    return tensor.astype(np.float32) if isinstance(tensor, np.ndarray) else tensor.dequantize()


def _linear(weight: NDArray[np.float32], form: str, group: int, *, shifted: bool) -> PackedTensor:
    if form in ("f16", "f32"):
        return pack(weight, form)
    if form in ("q8", "q4"):
        return pack(IntTensor.quantize(weight, int(form[1]), group), form)
    grouped = weight.reshape(len(weight), -1, group)
    scale = np.abs(grouped).mean(axis=2).astype(np.float16)
    step = scale.astype(np.float32)[..., None]
    codes = np.where(grouped < 0, -1, 1) if form == "b1" else np.clip(np.rint(grouped / step), -1, 1)
    shift = grouped.mean(axis=2).astype(np.float16) if shifted else None
    return pack(TernaryTensor(codes.astype(np.int8).reshape(weight.shape), scale, shift), form)
