"""The golden vectors of docs/format.md that say what kernels compute, in every instruction set and in numpy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tercet import kernels
from tercet.packing import PackedTensor, pack, reference
from tercet.program.hadamard import rotated
from tercet.tensor import IntTensor, TernaryTensor

GOLDEN = Path(__file__).parents[1] / "golden"
ACTIVATIONS = json.loads((GOLDEN / "activations-g32.json").read_text())
ROTATIONS = [json.loads((GOLDEN / f"rotate-b{block}.json").read_text()) for block in (32, 96)]
LINEARS = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("linear-*.json"))]


def _array(value: str, dtype: str, *shape: int) -> Any:
    return np.frombuffer(bytes.fromhex(value), dtype).reshape(shape)


def _packed(vector: dict[str, Any]) -> PackedTensor:
    (rows, cols), given = vector["shape"], vector["in"]
    codes, scale = _array(given["codes_i8"], "i1", rows, cols), _array(given["scale_f16"], "<f2", rows, -1)
    if vector["format"] == "q8":
        return pack(IntTensor(codes, 8, scale), "q8")
    shift = _array(given["shift_f16"], "<f2", rows, -1) if given["shift_f16"] else None
    return pack(TernaryTensor(codes, scale, shift), vector["format"])


@pytest.mark.parametrize("isa", [*kernels.backends(), "numpy"])
def test_activations(isa: str) -> None:
    cols, group, out = ACTIVATIONS["cols"], ACTIVATIONS["group_size"], ACTIVATIONS["out"]
    x = _array(ACTIVATIONS["in"]["x_f32"], "<f4", 1, cols)
    if isa == "numpy":
        codes, scale, total = reference.quantize_activations(x, group)
    else:
        found = kernels.quantize(x, group, isa=isa)
        codes, scale, total = found.codes[:, :cols], found.scale, found.sum
    assert codes.astype("i1").tobytes().hex() == out["codes_i8"]
    assert scale.astype("<f4").tobytes().hex() == out["scale_f32"]
    assert total.astype("<i4").tobytes().hex() == out["sum_i32"]


@pytest.mark.parametrize("vector", ROTATIONS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("isa", [*kernels.backends(), "numpy"])
def test_rotation(vector: dict[str, Any], isa: str) -> None:
    x, block = _array(vector["in"]["x_f32"], "<f4", 1, vector["cols"]), vector["block"]
    y = rotated(x, block) if isa == "numpy" else kernels.rotate(x, block, isa=isa)
    assert y.astype("<f4").tobytes().hex() == vector["out"]["y_f32"]


@pytest.mark.parametrize("vector", LINEARS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("isa", kernels.backends())
def test_linear(vector: dict[str, Any], isa: str) -> None:
    x = _array(vector["in"]["x_f32"], "<f4", 1, vector["shape"][1])
    bias = _array(vector["in"]["bias_f32"], "<f4", -1) if vector["in"].get("bias_f32") else None
    y = kernels.matmul(_packed(vector), x, bias=bias, isa=isa)
    assert y.astype("<f4").tobytes().hex() == vector["out"]["y_f32"]
