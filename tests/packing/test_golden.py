"""The golden vectors of docs/format.md: what the package packs, what the slow reference makes, what the page says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tercet.packing import PackedTensor, pack, unpack
from tercet.tensor import IntTensor, TernaryTensor

GOLDEN = Path(__file__).parents[1] / "golden"
VECTORS = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]
MATRICES = [vector for vector in VECTORS if vector["kind"] == "matrix"]


def array(value: str, dtype: str, *shape: int) -> Any:
    return np.frombuffer(bytes.fromhex(value), dtype).reshape(shape)


def tensor(vector: dict[str, Any]) -> TernaryTensor | IntTensor:
    (rows, cols), given = vector["shape"], vector["in"]
    codes, scale = array(given["codes_i8"], "i1", rows, cols), array(given["scale_f16"], "<f2", rows, -1)
    if vector["format"] in ("q8", "q4"):
        return IntTensor(codes, int(vector["format"][1]), scale)
    return TernaryTensor(codes, scale, given["shift_f16"] and array(given["shift_f16"], "<f2", rows, -1))


def test_there_are_twelve() -> None:
    assert len(VECTORS) == 12
    assert {vector["format"] for vector in MATRICES} == {"t2", "t19", "t5", "b1", "q8", "q4"}


@pytest.mark.parametrize("vector", MATRICES, ids=lambda vector: vector["name"])
def test_packing_gives_these_bytes(vector: dict[str, Any]) -> None:
    packed, out = pack(tensor(vector), vector["format"]), vector["out"]
    assert packed.codes.tobytes().hex() == out["weight"]
    assert packed.scale is not None
    assert packed.scale.tobytes().hex() == out["weight_scale"]
    assert (packed.shift is None) == (out["weight_shift"] is None)
    assert packed.shift is None or packed.shift.tobytes().hex() == out["weight_shift"]


@pytest.mark.parametrize("vector", MATRICES, ids=lambda vector: vector["name"])
def test_these_bytes_unpack_to_the_codes(vector: dict[str, Any]) -> None:
    expected, out = tensor(vector), vector["out"]
    shapes = pack(expected, vector["format"])
    assert shapes.scale is not None
    scale = array(out["weight_scale"], "<f2", *shapes.scale.shape)
    shift = out["weight_shift"] and array(out["weight_shift"], "<f2", *shapes.scale.shape)
    codes = array(out["weight"], "u1", *shapes.codes.shape)
    packed = PackedTensor(vector["format"], tuple(vector["shape"]), vector["group_size"], codes, scale, shift)
    assert unpack(packed).equals(expected)  # type: ignore[union-attr, arg-type]


def test_the_slow_reference_still_makes_them() -> None:
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert {vector.pop("name"): vector for vector in map(dict, VECTORS)} == make.vectors()
    page = (GOLDEN.parents[1] / "docs/format.md").read_text()
    assert make.page(make.vectors()).strip() in page
