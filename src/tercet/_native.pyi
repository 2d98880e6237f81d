# The extension module: native/python/*.cpp.
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

class Matrix:
    def __init__(
        self, format: int, rows: int, cols: int, group: int, codes: NDArray[Any], scale: Any, shift: Any
    ) -> None: ...
    rows: int
    cols: int
    group: int
    stride: int

def backends() -> list[str]: ...
def default_backend() -> str: ...
def reads(isa: str, format: int) -> bool: ...
def quantize(isa: str, x: F32, group: int, stride: int) -> tuple[NDArray[np.int8], F32, NDArray[np.int32]]: ...
def linear(
    isa: str,
    weight: Matrix,
    codes: NDArray[np.int8],
    scale: F32,
    sum: NDArray[np.int32],
    bias: F32 | None,
    threads: int,
) -> F32: ...
def matmul(isa: str, weight: Matrix, x: F32, bias: F32 | None, threads: int) -> F32: ...
def linear_float(isa: str, weight: Matrix, x: F32, bias: F32 | None, threads: int) -> F32: ...
def row(isa: str, weight: Matrix, index: int, factor: float) -> F32: ...
def rmsnorm(isa: str, x: F32, weight: F32, eps: float, /) -> F32: ...
def layernorm(isa: str, x: F32, weight: F32, bias: F32 | None, eps: float, /) -> F32: ...
def rope(isa: str, x: F32, cos: F32, sin: F32, /) -> F32: ...
def attention(
    isa: str, q: F32, k: F32, v: F32, window: int, scale: float, type: int, at_once: int, split: int, /
) -> F32: ...
def activate(isa: str, function: int, x: F32, /) -> F32: ...
def gated(isa: str, function: int, gate: F32, up: F32, /) -> F32: ...
def add(isa: str, a: F32, b: F32, /) -> F32: ...
def clip(isa: str, x: F32, limit: float, /) -> F32: ...
def rotate(isa: str, x: F32, block: int, /) -> F32: ...

class ProgramBuilder:
    def matrix(self, name: str, matrix: Matrix) -> None: ...
    def vector(self, name: str, values: F32) -> None: ...
    def rope(self, inv_freq: F32, factor: float) -> None: ...
    def width(self, name: str, width: int, /) -> None: ...
    def vocab(self, size: int, /) -> None: ...
    def op(
        self,
        kind: str,
        inputs: list[str],
        output: str,
        weight: str,
        bias: str,
        eps: float,
        dim: int,
        offset: float,
        factor: float,
        heads: int,
        kv_heads: int,
        head_dim: int,
        window: int,
        layer: int,
        rope: int,
        function: str,
        limit: float = 0.0,
        causal: bool = True,
        row: str = "first",
        token: int = -1,
    ) -> None: ...

class Sequence:
    length: int
    kv_bytes: int

class Engine:
    def __init__(
        self,
        builder: ProgramBuilder,
        isa: str,
        threads: int,
        chunk: int,
        quantize: bool,
        kv: str,
        context: int,
    ) -> None: ...
    isa: str
    width: int
    def sequence(self) -> Sequence: ...
    def rewind(self, sequence: Sequence, length: int, /) -> None: ...
    def fork(self, sequence: Sequence, length: int, /) -> Sequence: ...
    def step(
        self,
        sequences: list[Sequence],
        ids: list[NDArray[np.int32] | list[int]],
        wanted: list[int],
        logits: F32,
        given: list[tuple[int, F32]] = ...,
    ) -> None: ...

class Tower:
    def __init__(
        self, builder: ProgramBuilder, isa: str, threads: int, chunk: int, quantize: bool, context: int
    ) -> None: ...
    isa: str
    dim: int
    def rows(self, length: int) -> int: ...
    def ids(self, ids: NDArray[np.int32], result: F32) -> None: ...
    def pixels(self, pixels: F32, patch: int, result: F32) -> None: ...

class Sampler:
    def __init__(
        self,
        vocab: int,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        repetition_penalty: float,
        seed: int,
        isa: str = "",
    ) -> None: ...
    def accept(self, ids: NDArray[np.int32] | int, /) -> None: ...
    def sample(self, logits: F32, row: int = ..., /) -> int: ...

# Of these two the arrays are torch's tensors, by DLPack.
def levels_forward(weight: Any, scale: Any, shift: Any, binary: bool, codes: Any, values: Any) -> None: ...
def levels_backward(gradient: Any, codes: Any, weight: Any, scale: Any, shift: Any) -> None: ...
