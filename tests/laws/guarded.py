"""Run as a script by test_kernels_safety.py: every array ends (or begins) at a page no one may touch, so that a kernel
that reads or writes outside what it was given dies of SIGSEGV."""

from __future__ import annotations

import ctypes
import mmap
from itertools import product
from types import SimpleNamespace

import numpy as np

from kernel_cases import PACKED, TILE_COLUMNS, isas
from tercet import _native, kernels

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
keep = []


def guarded(values: np.ndarray, at_end: bool) -> np.ndarray:
    """A copy that touches the forbidden page before or after it."""
    pages = -(-values.nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    keep.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages - 1):
        assert libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0) == 0
    offset = (pages - 1) * PAGE - values.nbytes if at_end else PAGE
    copy = np.frombuffer(memory, values.dtype, values.size, offset).reshape(values.shape)
    copy[...] = values
    return copy


def packed_products(isa: str, at_end: bool, rng: np.random.Generator) -> None:
    for fmt, n, (rows, cols) in product(PACKED, (1, 3, 13, 30), ((1, 1), (17, 64), (33, 70), (80, 640))):
        tiles, row_tiles = -(-cols // TILE_COLUMNS[fmt]), -(-rows // 16)
        codes = guarded(rng.integers(0, 256, (row_tiles, tiles, 64), dtype=np.uint8), at_end)
        scale = guarded(np.ones((row_tiles, 1, 16), np.float16), at_end)
        bias = guarded(np.zeros(rows, np.float32), at_end)
        weight = kernels.matrix(
            SimpleNamespace(format=fmt, shape=(rows, cols), group_size=cols, codes=codes, scale=scale, shift=scale)
        )
        x = guarded(rng.normal(size=(n, cols)).astype(np.float32), at_end)
        quantized = _native.quantize(isa, x, weight.group, weight.stride)
        if isa in isas(fmt):
            _native.linear(isa, weight, *(guarded(a, at_end) for a in quantized), bias, 1)
        _native.linear_float(isa, weight, x, bias, 1)
        _native.row(isa, weight, rows - 1, 1.0)


def float_operations(isa: str, at_end: bool, rng: np.random.Generator) -> None:
    for size in (1, 3, 15, 16, 17, 40):
        x, w = (guarded(rng.normal(size=(s, size)).astype(np.float32), at_end) for s in (3, 1))
        _native.rmsnorm(isa, x, w[0], 1e-5)
        _native.layernorm(isa, x, w[0], w[0], 1e-5)
        _native.gated(isa, 0, w[0], w[0])
        _native.add(isa, w[0], w[0])
        _native.clip(isa, x, 1.0)
        _native.rotate(isa, x, size & -size)
        _native.rotate(isa, guarded(rng.normal(size=(2, 12)).astype(np.float32), at_end), 12)
        _native.rope(isa, x, w[0, : size // 2], w[0, : size // 2])
        heads = x[:, None, :]
        for cache in range(3):
            _native.attention(isa, heads, heads, heads, 0, 1.0, cache, 2, 0)
        for dtype, fmt in ((np.float16, "f16"), (np.float32, "f32")):
            dense = guarded(np.ones((3, size), dtype), at_end)
            kept = SimpleNamespace(format=fmt, shape=(3, size), group_size=size, codes=dense, scale=None, shift=None)
            _native.linear_float(isa, kernels.matrix(kept), x, None, 1)
            _native.row(isa, kernels.matrix(kept), 2, 1.0)


if __name__ == "__main__":
    for name, end in product(kernels.backends(), (True, False)):
        packed_products(name, end, np.random.default_rng(0))
        float_operations(name, end, np.random.default_rng(1))
    print("no access outside")
