"""The tiny models of `tiny`, rounded and packed: what engine tests run. Plain rounding: quality does not matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import tiny
import tiny_towers
from tercet import families
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Model, Program, Weight
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["floats", "model", "towers"]

Tensors = dict[str, PackedTensor | NDArray[np.float32]]


def model(family: str = "llama", linear: str = "t2", group: int = 32, **overrides: Any) -> tuple[Program, Tensors]:
    """The program and its tensors: linears in `linear`, embedding and head int8; a shift on every second ternary."""
    _, config, state = tiny.model(family, **overrides)
    program = families.model(config).text
    return program, _packed(program.weights, state, linear, group)


def towers(
    family: str = "clip", linear: str = "t2", group: int | None = None, **parts: Any
) -> tuple[Model, Tensors, dict[str, Any]]:
    """Both towers, their tensors, the config: linears and patches in `linear`, a scale a row where `group` is None."""
    _, config, state = tiny_towers.model(family, **parts)
    made = families.model(config)
    return made, _packed(made.weights, state, linear, group), config


def _packed(weights: dict[str, Weight], state: dict[str, Any], linear: str, group: int | None) -> Tensors:
    tensors: Tensors = {}
    for index, (name, weight) in enumerate(weights.items()):
        value = state[name].astype(np.float32)
        columns = group or value.shape[-1]
        if weight.role == "vector":
            tensors[name] = value
        elif weight.role == "linear" or (weight.role == "embedding" and "patch" in name):
            tensors[name] = _linear(value, linear, columns, shifted=index % 2 == 0)
        elif weight.role == "position":
            tensors[name] = pack(value, "f16")
        else:
            tensors[name] = pack(IntTensor.quantize(value, 8, columns), "q8")
    return tensors


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
