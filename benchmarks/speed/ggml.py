"""y = W x by ggml, as its graphs compute it: the matrix product of llama.cpp and ik_llama.cpp, through ctypes.

Weights lie where the peer itself would put them: in the first of its "extra" buffer types (AMX, repacked) that takes
the tensor, else in its plain CPU buffer. A graph holds several products; threads are OpenMP's and persist.
"""

from __future__ import annotations

import ctypes
import time
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speed.process import pin, unpin
from speed.weights import activations, dequantize, relative_error, ternary

TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "TQ1_0": 34, "TQ2_0": 35, "Q2_0": 42,
    "IQ1_BN": 134, "IQ2_BN": 135, "Q4_0_R8": 202, "IQ2_BN_R4": 335,
}  # fmt: skip
# Types that round ternary weights: Q4_0 reaches one sign's value only to 7/8. The bound on the output check.
ROUNDS = {"Q4_0": 0.12, "Q4_0_R8": 0.12}
EXACT = 0.02  # activations rounded to int8
CPU_DEVICE = 0
PRODUCTS = 16  # of a graph, with one token; fewer with more


class _Init(Structure):
    _fields_ = (("size", c_size_t), ("buffer", c_void_p), ("no_alloc", c_bool))


class Ggml:
    """The functions of libggml that the benchmark needs; the same names in both peers."""

    def __init__(self, folder: Path) -> None:
        found = [folder / name for name in ("libggml-base.so", "libggml-cpu.so", "libggml.so")]
        self.libraries = [ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL) for path in found if path.exists()]
        pointer, number = c_void_p, c_int64
        self.init = self._function("ggml_init", pointer, _Init)
        self.free = self._function("ggml_free", None, pointer)
        self.new_2d = self._function("ggml_new_tensor_2d", pointer, pointer, c_int, number, number)
        self.mul_mat = self._function("ggml_mul_mat", pointer, pointer, pointer, pointer)
        self.new_graph = self._function("ggml_new_graph_custom", pointer, pointer, c_size_t, c_bool)
        self.expand = self._function("ggml_build_forward_expand", None, pointer, pointer)
        self.quantize = self._function(
            "ggml_quantize_chunk", c_size_t, c_int, POINTER(c_float), pointer, number, number, number, pointer
        )
        self.row_size = self._function("ggml_row_size", c_size_t, c_int, number)
        self.cpu = self._function("ggml_backend_cpu_init", pointer)
        self.set_threads = self._function("ggml_backend_cpu_set_n_threads", None, pointer, c_int)
        self.compute = self._function("ggml_backend_graph_compute", c_int, pointer, pointer)
        self.plain_buffer = self._function("ggml_backend_cpu_buffer_type", pointer)
        self.allocate = self._function("ggml_backend_alloc_ctx_tensors_from_buft", pointer, pointer, pointer)
        self.free_buffer = self._function("ggml_backend_buffer_free", None, pointer)
        self.set = self._function("ggml_backend_tensor_set", None, pointer, pointer, c_size_t, c_size_t)
        self.get = self._function("ggml_backend_tensor_get", None, pointer, pointer, c_size_t, c_size_t)
        self.buffer_name = self._function("ggml_backend_buft_name", c_char_p, pointer)

    def _function(self, name: str, result: Any, *arguments: Any) -> Any:
        for library in self.libraries:
            function = getattr(library, name, None)
            if function is not None:
                function.restype, function.argtypes = result, arguments
                return function
        raise OSError(f"{name} is not in this build of ggml")

    def extra_buffers(self) -> list[int]:
        """Buffer types that convert weights for this CPU, best first; none in older ggml."""
        try:
            device = self._function("ggml_backend_dev_by_type", c_void_p, c_int)(CPU_DEVICE)
            registry = self._function("ggml_backend_dev_backend_reg", c_void_p, c_void_p)(device)
            address = self._function("ggml_backend_reg_get_proc_address", c_void_p, c_void_p, c_char_p)(
                registry, b"ggml_backend_dev_get_extra_bufts"
            )
        except OSError:
            return []
        listed = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(device)
        found = []
        while listed[len(found)]:
            found.append(listed[len(found)])
        return found

    def supports(self, product: int) -> bool:
        """Whether the CPU runs a product whose weight lies where it lies."""
        device = self._function("ggml_backend_dev_by_type", c_void_p, c_int)(CPU_DEVICE)
        return bool(self._function("ggml_backend_dev_supports_op", c_bool, c_void_p, c_void_p)(device, product))


class _Weights:
    """Copies of one matrix, filled one after the other, in a buffer of the best kind that takes them."""

    def __init__(self, g: Ggml, kind: str, rows: int, cols: int, count: int) -> None:
        codes, scale = ternary(rows, cols, cols)
        self.values = dequantize(codes, scale)
        self.bytes = rows * g.row_size(TYPES[kind], cols)
        data = np.empty(self.bytes, np.uint8)
        source = self.values.ctypes.data_as(POINTER(c_float))
        if g.quantize(TYPES[kind], source, data.ctypes.data, 0, rows, cols, None) != self.bytes:
            raise ValueError(f"{kind}: quantized to another size than {self.bytes} bytes")
        extra = [buffer for buffer in g.extra_buffers() if _fits(g, buffer, kind, rows, cols)]
        buffer = [*extra, g.plain_buffer()][0]
        self.context = g.init(_Init((count + 8) * 512, None, True))
        self.tensors = [g.new_2d(self.context, TYPES[kind], cols, rows) for _ in range(count)]
        self.buffer = g.allocate(self.context, buffer)
        if not self.buffer:
            raise MemoryError(f"{kind}: no memory for {count} matrices")
        self.place = g.buffer_name(buffer).decode()
        for tensor in self.tensors:
            g.set(tensor, data.ctypes.data, 0, self.bytes)


def _fits(g: Ggml, buffer: int, kind: str, rows: int, cols: int) -> bool:
    """Asks the CPU backend, as llama.cpp's loader does, with a product of one weight in that buffer."""
    context = g.init(_Init(1 << 14, None, True))
    weight = g.new_2d(context, TYPES[kind], cols, rows)
    held = g.allocate(context, buffer)
    fits = bool(held) and g.supports(g.mul_mat(context, weight, g.new_2d(context, TYPES["F32"], cols, 1)))
    if held:
        g.free_buffer(held)
    g.free(context)
    return fits


@dataclass
class _Case:
    graphs: list[int]
    each: int  # products of a graph
    buffer: int  # the outputs'
    context: int
    next: int = 0


class Products:
    """Products of one peer: `prepare`, then `time` as often as wanted."""

    def __init__(self, folder: Path) -> None:
        self.g = Ggml(folder)
        self.backend = self.g.cpu()
        self.weights: dict[tuple[str, int, int], _Weights] = {}
        self.graphs: dict[str, _Case] = {}

    def prepare(self, key: str, kind: str, rows: int, cols: int, n: int, rotate: int) -> dict[str, Any]:
        """Weights that rotate over `rotate` bytes, and graphs for n tokens; the output is checked.

        Returns bytes of a matrix, where it lies, and the output's relative error.
        """
        g = self.g
        count = -(-rotate // (rows * g.row_size(TYPES[kind], cols)))
        shape = (kind, rows, cols)
        if shape not in self.weights:
            self.weights[shape] = _Weights(g, kind, rows, cols, count)
        weights = self.weights[shape]
        x = activations(n, cols)
        context = g.init(_Init((count + 8) * 1024 + 64 * 4096, None, True))
        given = g.new_2d(context, TYPES["F32"], cols, n)
        outputs = [g.mul_mat(context, weight, given) for weight in weights.tensors]
        each = min(max(PRODUCTS // n, 1), count)
        graphs = []
        for first in range(0, count - each + 1, each):
            graph = g.new_graph(context, 64, False)
            for output in outputs[first : first + each]:
                g.expand(graph, output)
            graphs.append(graph)
        buffer = g.allocate(context, g.plain_buffer())
        if not buffer:
            raise MemoryError(f"{key}: no memory for outputs")
        g.set(given, x.ctypes.data, 0, x.nbytes)
        self.graphs[key] = _Case(graphs, each, buffer, context)
        self._run(key)
        y = np.empty((n, rows), np.float32)
        g.get(outputs[0], y.ctypes.data, 0, y.nbytes)
        error = relative_error(y, x.astype(np.float64) @ weights.values.T.astype(np.float64))
        if not error < ROUNDS.get(kind, EXACT):
            raise ArithmeticError(f"{key}: the output is wrong, relative error {error:.3g}")
        return {"bytes": weights.bytes, "place": weights.place, "error": error}

    def time(self, key: str, threads: int, seconds: float) -> float:
        """Seconds for one product: the mean over at least `seconds` of them, weights always the longest unused."""
        unpin()
        self.g.set_threads(self.backend, threads)
        self._run(key)
        pin(threads)
        spent, graphs = 0.0, 0
        while spent < seconds:
            start = time.perf_counter()
            self._run(key)
            spent += time.perf_counter() - start
            graphs += 1
        return spent / (graphs * self.graphs[key].each)

    def _run(self, key: str) -> None:
        state = self.graphs[key]
        if self.g.compute(self.backend, state.graphs[state.next]):
            raise RuntimeError(f"{key}: the graph failed")
        state.next = (state.next + 1) % len(state.graphs)

    def quantize(self, source: str, target: str, kind: str) -> None:
        """A .npy file of float32[rows, columns] to a file of that type's bytes."""
        values = np.load(source)
        rows, cols = values.shape
        data = np.empty(rows * self.g.row_size(TYPES[kind], cols), np.uint8)
        pointer = values.ctypes.data_as(POINTER(c_float))
        if self.g.quantize(TYPES[kind], pointer, data.ctypes.data, 0, rows, cols, None) != len(data):
            raise ValueError(f"{kind}: quantized to another size than {len(data)} bytes")
        data.tofile(target)

    def clear(self) -> None:
        """Frees all cases and weights."""
        for held in (*self.graphs.values(), *self.weights.values()):
            self.g.free_buffer(held.buffer)
            self.g.free(held.context)
        self.graphs.clear()
        self.weights.clear()
