"""Law 3 for towers that end in many rows: the same bits, whatever computes them; and all readers agree."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_packed
import tiny_towers as tiny
from tercet import kernels
from tercet.modules.ops import Buffers, run
from tercet.program import Op, Program, interpreter
from tercet.program.patches import patches
from tercet.runtime.pictures.tower import Options, Tower

# All rows but the class's; all rows; those of a text, as many as it has tokens.
KINDS = ["clip image", "siglip image", "clip text"]


@functools.cache
def _program(kind: str) -> tuple[Program, Any, Any]:
    """A tower of the tiny models with another end, its tensors and its picture."""
    family, name = kind.split()
    model, tensors, _ = tiny_packed.towers(family)
    part = model.parts[name]
    ops = list(part.ops)
    if kind == "siglip image":  # without the pooling
        ops = ops[: next(i for i, op in enumerate(ops) if op.kind == "constant")]
    else:
        at = next(i for i, op in enumerate(ops) if op.kind == "pick")
        picked = ops[at]
        ops[at] = Op("drop", picked.inputs[:1], picked.output)
        if kind == "clip text":
            ops[at : at + 2] = [replace(ops[at + 1], inputs=picked.inputs[:1])]
    widths = {**part.widths, "rows": part.widths[ops[-1].output]}
    ops[-1] = replace(ops[-1], output="rows")
    weights = {name: part.weights[name] for op in ops for name in (op.weight, op.bias) if name}
    return replace(part, ops=tuple(ops), weights=weights, widths=widths), tensors, model.pixels


def _rows(kind: str, count: int | slice = slice(None), **options: Any) -> NDArray[np.float32]:
    program, tensors, picture = _program(kind)
    chosen = {"threads": 1, "isa": None, "activations": "int8", "chunk": 256, **options}
    tower = Tower(program, tensors, Options(**chosen))
    if program.reads == "patches":
        return tower.encode_pixels(tiny.pixels(size=picture.size)[count], picture)
    return tower.encode_ids(tiny.texts()[count])


@functools.cache
def _expected(kind: str) -> NDArray[np.float32]:
    return _rows(kind, isa="scalar")


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_rows_as_there_are(kind: str) -> None:
    program, _, _ = _program(kind)
    shape = (program.context, program.widths["rows"])
    assert _expected(kind).shape[1:] == _rows(kind, slice(0)).shape[1:] == shape
    assert (
        len(np.unique(_expected(kind).reshape(-1, program.widths["rows"]), axis=0)) > 20
    )  # not one row again and again


@pytest.mark.parametrize("isa", kernels.backends())
@pytest.mark.parametrize("kind", KINDS)
def test_same_on_every_instruction_set(kind: str, isa: str) -> None:
    assert np.array_equal(_rows(kind, isa=isa), _expected(kind))


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 40, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_same_for_threads_and_chunks_and_alone(kind: str, chunk: int, threads: int) -> None:
    assert np.array_equal(_rows(kind, threads=threads, chunk=chunk), _expected(kind))
    assert np.array_equal(_rows(kind, slice(2, 3), threads=threads, chunk=chunk), _expected(kind)[2:3])


@pytest.mark.parametrize("kind", KINDS)
def test_float_mode_the_interpreter_and_torch_agree(kind: str) -> None:
    program, packed, picture = _program(kind)
    tensors = tiny_packed.floats(packed)
    given = tiny.texts() if program.reads == "ids" else patches(tiny.pixels(size=picture.size), picture.patch)
    expected = interpreter.embeddings(program, tensors, given)
    assert expected.std() > 0.1  # else the comparison says nothing
    buffers: Buffers = {program.reads: torch.from_numpy(given)}
    weights = {name: torch.from_numpy(value) for name, value in tensors.items()}
    for op in program.ops:
        run(program, op, buffers, weights)
    for found in (_rows(kind, activations="float32"), buffers["rows"].numpy()):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
