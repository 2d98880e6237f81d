"""y = W x by the product's kernels, through the benchmark's native library: no Python between two products.

Weights lie one after the other in huge pages, as they do in a model's file.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.limits import Limits
from speed.process import pin, unpin
from speed.weights import activations, relative_error, ternary
from tercet.kernels import FORMATS, matrix
from tercet.packing import PackedTensor, pack
from tercet.packing.packed import LAYOUTS
from tercet.tensor import TernaryTensor

EXACT = 0.02  # activations rounded to int8
PRODUCTS = 16  # timed at once, with one token; fewer with more


class _Matrix(Structure):
    """tercet_matrix of native/kernels.h."""

    _fields_ = (
        *((name, c_int32) for name in ("format", "rows", "cols", "group", "groups", "col_tiles")),
        *((name, c_void_p) for name in ("codes", "scale", "shift")),
    )


class _Weights:
    """Copies of one packed matrix in one mapping."""

    def __init__(self, kind: str, rows: int, cols: int, group: int, rotate: int) -> None:
        codes, scale = ternary(rows, cols, group or cols)
        tensor = TernaryTensor(codes, scale, None)
        self.values = tensor.dequantize()
        packed = pack(tensor, kind)
        self.bytes = packed.nbytes
        self.stride = matrix(packed).stride
        count = -(-rotate // self.bytes)
        step = -(-self.bytes // 4096) * 4096
        self.area = mmap.mmap(-1, count * step)
        self.area.madvise(mmap.MADV_HUGEPAGE)
        view = np.frombuffer(self.area, np.uint8)
        assert packed.scale is not None
        codes_bytes = packed.codes.reshape(-1).view(np.uint8)
        scale_bytes = packed.scale.reshape(-1).view(np.uint8)
        self.matrices = (_Matrix * count)()
        for i in range(count):
            at = i * step
            view[at : at + len(codes_bytes)] = codes_bytes
            view[at + len(codes_bytes) : at + self.bytes] = scale_bytes
            address = view.ctypes.data + at
            self.matrices[i] = self._describe(packed, address, address + len(codes_bytes))

    @staticmethod
    def _describe(packed: PackedTensor, codes: int, scale: int) -> _Matrix:
        assert packed.scale is not None
        rows, cols = packed.shape
        tiles, groups = packed.codes.shape[1], packed.scale.shape[1]
        group = tiles // groups * LAYOUTS[packed.format].columns
        return _Matrix(FORMATS[packed.format], rows, cols, group, groups, tiles, codes, scale, None)


class Products:
    """Products by the product's kernels: `prepare`, then `time` as often as wanted."""

    def __init__(self, library: Path) -> None:
        native = ctypes.CDLL(str(library))
        self.products = native.bench_products
        self.products.restype = c_double
        pointer = c_void_p
        self.products.argtypes = (c_char_p, pointer, c_int, POINTER(c_float), c_int, c_int64, POINTER(c_float), c_int)
        native.bench_default_isa.restype = c_char_p
        self.default = native.bench_default_isa().decode()
        self.limits = Limits(native)
        self.weights: dict[tuple[str, int, int, int], _Weights] = {}
        self.cases: dict[str, dict[str, Any]] = {}

    def about(self) -> dict[str, Any]:
        """The instruction set that runs where none is asked for, and the packed formats that kernels read."""
        return {"isa": self.default, "formats": list(FORMATS)}

    def prepare(self, key: str, kind: str, rows: int, cols: int, group: int, n: int, rotate: int, isa: str) -> Any:
        """Weights that rotate over `rotate` bytes, n tokens; `group` 0 for row scales. The output is checked.

        Returns bytes of a matrix and the output's relative error.
        """
        shape = (kind, rows, cols, group)
        if shape not in self.weights:
            self.weights[shape] = _Weights(kind, rows, cols, group, rotate)
        weights = self.weights[shape]
        x = activations(n, cols)
        each = min(max(PRODUCTS // n, 1), len(weights.matrices))
        y = np.empty((each, n, rows), np.float32)
        self.cases[key] = {"weights": weights, "x": x, "y": y, "each": each, "next": 0, "isa": isa.encode()}
        self._run(key, 1)
        error = relative_error(y[0], x.astype(np.float64) @ weights.values.T.astype(np.float64))
        if not error < EXACT:
            raise ArithmeticError(f"{key}: the output is wrong, relative error {error:.3g}")
        return {"bytes": weights.bytes, "error": error}

    def time(self, key: str, threads: int, seconds: float) -> float:
        """Seconds for one product: the mean over at least `seconds` of them, weights always the longest unused."""
        unpin()
        self._run(key, threads)
        pin(threads)
        spent, runs = 0.0, 0
        while spent < seconds:
            start = time.perf_counter()
            self._run(key, threads)
            spent += time.perf_counter() - start
            runs += 1
        return spent / (runs * self.cases[key]["each"])

    def _run(self, key: str, threads: int) -> None:
        case = self.cases[key]
        weights, x, y = case["weights"], case["x"], case["y"]
        first = ctypes.byref(weights.matrices, case["next"] * ctypes.sizeof(_Matrix))
        taken = self.products(case["isa"], first, case["each"], _floats(x), len(x), weights.stride, _floats(y), threads)
        if taken < 0:
            raise RuntimeError(f"{key}: {case['isa'].decode() or 'the default'} cannot run here")
        case["next"] = (case["next"] + case["each"]) % (len(weights.matrices) - case["each"] + 1)

    def clear(self) -> None:
        """Frees all cases and weights."""
        self.cases.clear()
        self.weights.clear()

    def limit(self, what: str, threads: int) -> float:
        """One reading of a limit of the machine (speed.limits)."""
        unpin()
        return self.limits.read(what, threads)


def _floats(array: NDArray[np.float32]) -> Any:
    return array.ctypes.data_as(POINTER(c_float))
