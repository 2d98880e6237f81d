"""Kernels stay inside their arrays, survive a fork, run what TERCET_ISA asks for, and refuse what does not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernel_cases import weight
from tercet import kernels
from tercet.errors import EngineError
from tercet.packing import pack

HERE = Path(__file__).parent
ONES = np.ones((2, 64), np.float32)

FORK = """
import os
import numpy as np
from kernel_cases import weight
from tercet import kernels
from tercet.packing import pack
w = pack(weight("t2", 64, 64, 1, np.random.default_rng(0)), "t2")
x = np.ones((3, 64), np.float32)
before = kernels.matmul(w, x, threads=4)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(kernels.matmul(w, x, threads=4), before) else 1)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(kernels.matmul(w, x, threads=4), before)
"""


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([*sys.path, str(HERE.parent)])
    settings = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.run([sys.executable, *arguments], env=settings, capture_output=True, text=True, timeout=120)


def test_no_kernel_touches_memory_outside_its_arrays() -> None:
    result = python(str(HERE / "guarded.py"))
    assert result.returncode == 0, f"exit {result.returncode}: {result.stderr}"
    assert "no access outside" in result.stdout


def test_a_forked_child_starts_its_own_threads() -> None:
    result = python("-W", "ignore", "-c", FORK)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("isa", kernels.backends())
def test_the_environment_chooses_the_instruction_set(isa: str) -> None:
    program = "from tercet import kernels; print(kernels.default_backend())"
    assert python("-c", program, TERCET_ISA=isa).stdout.strip() == isa


def test_an_unknown_instruction_set_is_refused() -> None:
    message = python("-c", "from tercet import kernels; kernels.default_backend()", TERCET_ISA="mmx").stderr
    assert "unknown instruction set 'mmx'" in message
    assert "scalar" in message
    with pytest.raises(EngineError, match="unknown instruction set"):
        kernels.quantize(ONES, 64, isa="mmx")


def packed() -> Any:
    return pack(weight("t2", 16, 64, 1, np.random.default_rng(0)), "t2")


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": ONES[:, :63]},
        {"x": ONES[0]},
        {"x": np.full((1, 64), np.nan, np.float32)},
        {"x": np.full((1, 64), np.inf, np.float32)},
        {"bias": np.ones(15, np.float32)},
        {"threads": 0},
        {"threads": 100000},
    ],
)
def test_calls_that_do_not_fit_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(EngineError):
        kernels.matmul(packed(), **{"x": ONES, **arguments})


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (17, 64)},
        {"shape": (16, 65)},
        {"shape": (0, 64)},
        {"shape": (2**31, 64)},
        {"shape": (16, 2**31)},
        {"group_size": 8},
        {"group_size": 0},
        {"format": "b1"},
        {"format": "t5"},
        {"codes": np.zeros(255, np.uint8)},
        {"codes": np.zeros(256, np.int8)},
        {"codes": np.zeros(512, np.uint8)[::2]},
        {"scale": None},
        {"scale": np.zeros(15, np.float16)},
        {"scale": np.zeros(16, np.float32)},
        {"shift": np.zeros(17, np.float16)},
    ],
)
def test_weights_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    good = packed()
    fields = {name: getattr(good, name) for name in ("format", "shape", "group_size", "codes", "scale", "shift")}
    kernels.matrix(SimpleNamespace(**fields))
    with pytest.raises(EngineError):
        kernels.matrix(SimpleNamespace(**{**fields, **change}))


def test_int8_columns_under_one_scale_are_bounded() -> None:
    cols = 131_076
    wide = SimpleNamespace(
        format="q8", shape=(16, cols), group_size=cols, codes=np.zeros(16 * cols, np.uint8),
        scale=np.ones(16, np.float16), shift=None,
    )  # fmt: skip
    with pytest.raises(EngineError, match="131072"):
        kernels.matrix(wide)


def test_float_weights_take_float_activations_only() -> None:
    with pytest.raises(EngineError, match="packed format"):
        kernels.matmul(pack(np.ones((4, 64), np.float32), "f32"), ONES)


def test_a_row_outside_is_refused() -> None:
    with pytest.raises(EngineError, match="row"):
        kernels.row(packed(), 16)
