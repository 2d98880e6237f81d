"""Python face of the native kernels: which instruction sets run here, and y = W x on packed weights.

    x float32 -> int8, a scale and a sum per token and group  (quantize)
    y = sum over groups of fma(sx*alpha, D - S, acc), then the bias  (docs/format.md, "Arithmetic")

Results are bit-identical on every instruction set and thread count. The engine does not come through here: it calls
the same table of functions from C++.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tercet import _native
from tercet.errors import EngineError

__all__ = [
    "FORMATS",
    "Activations",
    "Weight",
    "backends",
    "clip",
    "default_backend",
    "matmul",
    "matrix",
    "quantize",
    "reads",
    "rotate",
    "row",
]

FORMATS = {"t2": 0, "b1": 1, "q8": 2, "q4": 3, "t19": 4, "f16": 5, "f32": 6}
"""Formats a kernel reads in place, and their numbers in native/kernels.h; t19 not on every instruction set."""


class Weight(Protocol):
    """What the kernels need of a `tercet.packing.PackedTensor`."""

    @property
    def format(self) -> str: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def group_size(self) -> int: ...
    @property
    def codes(self) -> NDArray[Any]: ...
    @property
    def scale(self) -> NDArray[np.float16] | None: ...
    @property
    def shift(self) -> NDArray[np.float16] | None: ...


@dataclass(frozen=True, eq=False)
class Activations:
    """Quantized tokens.

    Attributes:
        codes: int8[n, stride], -127..127; columns past the width are 0.
        scale: float32[n, groups], amax/127 of each group.
        sum: int32[n, groups], the sum of a group's codes.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    sum: NDArray[np.int32]


def backends() -> list[str]:
    """Instruction sets this build and CPU can run, best first."""
    return _native.backends()


def default_backend() -> str:
    """The best of `backends()`, or what TERCET_ISA asks for; raises EngineError where that cannot run here."""
    try:
        return _native.default_backend()
    except ValueError as error:
        raise EngineError(f"TERCET_ISA: {error}") from None


def reads(format: str, isa: str | None = None) -> bool:
    """Whether `isa` (None: the default) multiplies int8 activations with this packed format as it is stored.

    What it does not read is converted: unpacked, and packed as t2. Raises EngineError where `isa` cannot run here.
    """
    try:
        return format in FORMATS and _native.reads(isa or "", FORMATS[format])
    except ValueError as error:
        raise EngineError(str(error)) from None


def matrix(packed: Weight) -> _native.Matrix:
    """The checked native view of packed weights; it keeps their arrays alive.

    Raises EngineError where no kernel reads the format, or arrays and shape do not fit each other.
    """
    if packed.format not in FORMATS:
        raise EngineError(f"no kernel reads {packed.format} in place; unpack it and pack it as t2")
    rows, cols = packed.shape
    try:
        return _native.Matrix(
            FORMATS[packed.format], rows, cols, packed.group_size, packed.codes, packed.scale, packed.shift
        )
    except (TypeError, ValueError) as error:
        raise EngineError(f"{packed.format}{[rows, cols]} weights: {error}".splitlines()[0]) from None


def quantize(
    x: NDArray[np.float32], group_size: int, *, stride: int | None = None, isa: str | None = None
) -> Activations:
    """float32[n, in] to int8, to nearest even, a scale per token and `group_size` columns.

    Args:
        stride: bytes between tokens in the result; the width rounded up to 64 where it is None.

    Raises EngineError where a value is not finite, or `isa` cannot run here.
    """
    width = x.shape[1]
    try:
        return Activations(*_native.quantize(isa or "", _floats(x), group_size, stride or -(-width // 64) * 64))
    except ValueError as error:
        raise EngineError(str(error)) from None


def matmul(
    packed: Weight,
    x: NDArray[np.float32],
    *,
    bias: NDArray[np.float32] | None = None,
    isa: str | None = None,
    threads: int = 1,
    activations: Literal["int8", "float32"] = "int8",
) -> NDArray[np.float32]:
    """x @ W.T + bias: float32[n, in] -> float32[n, out].

    Args:
        bias: float32[out] or None.
        isa: one of `backends()`; None for the default.
        threads: 1..256; changes the speed only.
        activations: "int8" as the model ships (packed formats), or "float32", which every format has.

    Raises EngineError where shapes do not fit, a value is not finite, or `isa` cannot run here or not read the format.
    """
    weight = matrix(packed)
    checked = None if bias is None else np.ascontiguousarray(bias, np.float32)
    run = _native.linear_float if activations == "float32" else _native.matmul
    try:
        return run(isa or "", weight, _floats(x), checked, threads)
    except ValueError as error:
        raise EngineError(str(error)) from None


def row(packed: Weight, index: int, *, factor: float = 1.0, isa: str | None = None) -> NDArray[np.float32]:
    """One row dequantized, times `factor`: float32[in]. Raises EngineError where there is no such row."""
    try:
        return _native.row(isa or "", matrix(packed), index, factor)
    except ValueError as error:
        raise EngineError(str(error)) from None


def rotate(x: NDArray[np.float32], block: int, *, isa: str | None = None) -> NDArray[np.float32]:
    """As `tercet.program.hadamard.rotated`, the same bits: float32[n, width].

    Raises EngineError where the block is none.
    """
    try:
        return _native.rotate(isa or "", _floats(x), block)
    except ValueError as error:
        raise EngineError(str(error)) from None


def clip(x: NDArray[np.float32], limit: float, *, isa: str | None = None) -> NDArray[np.float32]:
    """min(max(x, -limit), limit): float32[n, width]. Raises EngineError where the limit is not positive."""
    try:
        return _native.clip(isa or "", _floats(x), limit)
    except ValueError as error:
        raise EngineError(str(error)) from None


def _floats(x: NDArray[np.float32]) -> NDArray[np.float32]:
    if x.ndim != 2:
        raise EngineError(f"activations are {x.dtype}{list(x.shape)}; they must be float32[n, in]")
    return np.ascontiguousarray(x, np.float32)
