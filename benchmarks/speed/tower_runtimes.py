"""Image towers in every runtime, for `benchmarks/towers.py`: a participant loads one file and is timed on pictures.

`ours` reads a model folder; `torch` a transformers folder; `onnxruntime` and `openvino` an ONNX file, float32 or with
quantized matrices. OpenVINO is given the batch as a constant, which it runs faster; for others it is open.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 224
MODULES = {
    "ours": "tercet.runtime.pictures.encoder",
    "torch": "transformers.models.clip.modeling_clip",
    "openvino_float32": "openvino",
}


def pictures(count: int) -> Any:
    """float32[count, 3, 224, 224], as a processor would have normalised them."""
    return np.random.default_rng(count).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


class Tower:
    """One runtime with one file. `run` is made by `load` for a batch size."""

    def __init__(self, runtime: str, path: str, threads: str) -> None:
        self.make: Callable[[int], Callable[[Any], Any]] = getattr(self, f"_{runtime}")
        self.path, self.threads = Path(path), int(threads)
        self.runs: dict[int, Callable[[Any], Any]] = {}
        self.kept: Any = None
        importlib.import_module(MODULES.get(runtime, runtime))  # before memory is read

    def load(self, batch: int) -> float:
        """Seconds from the file to the first embedding of one batch."""
        before = _memory() if not self.runs else None
        given = pictures(batch)
        begin = time.perf_counter()
        self.runs[batch] = self.make(batch)
        self.runs[batch](given)
        seconds = time.perf_counter() - begin
        self.before = before or self.before
        return seconds

    def embeddings(self, batch: int) -> list[list[float]]:
        return np.asarray(self.runs[batch](pictures(batch)), np.float32).tolist()

    def time(self, batch: int, least: float) -> float:
        """Median seconds of a call, of as many as fill `least` seconds; short ones have one call before them."""
        given, taken = pictures(batch), []
        if batch == 1:
            self.runs[batch](given)
        end = time.perf_counter() + least
        while not taken or time.perf_counter() < end:
            begin = time.perf_counter()
            self.runs[batch](given)
            taken.append(time.perf_counter() - begin)
        return float(np.median(taken))

    def memory(self) -> dict[str, float]:
        """Growth in MB since before the file was opened: PSS now, and the peak of resident memory."""
        now = _memory()
        return {name: round((now[name] - self.before[name]) / 1e6, 1) for name in ("resident_mb", "peak_mb")}

    def _ours(self, _batch: int) -> Callable[[Any], Any]:
        from tercet.runtime.pictures.encoder import Encoder

        self.kept = self.kept or Encoder.open(self.path, threads=self.threads)
        return self.kept.encode_pixels

    def _torch(self, _batch: int) -> Callable[[Any], Any]:
        import torch
        from transformers import CLIPVisionModelWithProjection

        torch.set_num_threads(self.threads)
        if self.kept is None:
            self.kept = CLIPVisionModelWithProjection.from_pretrained(self.path, dtype=torch.float32).eval()

        def run(given: Any) -> Any:
            with torch.inference_mode():
                return self.kept(pixel_values=torch.from_numpy(given)).image_embeds.numpy()

        return run

    def _onnxruntime(self, _batch: int) -> Callable[[Any], Any]:
        import onnxruntime

        if self.kept is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self.threads
            self.kept = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
        return lambda given: self.kept.run(None, {self.kept.get_inputs()[0].name: given})[0]

    def _openvino(self, batch: int, **more: str) -> Callable[[Any], Any]:
        import openvino

        core = openvino.Core()
        model = core.read_model(self.path)
        model.reshape([batch, 3, SIZE, SIZE])
        settings = {"INFERENCE_NUM_THREADS": str(self.threads), "PERFORMANCE_HINT": "LATENCY", **more}
        compiled = core.compile_model(model, "CPU", settings)
        self.kept = [*(self.kept or []), compiled]
        return lambda given: compiled(given)[0]

    def _openvino_float32(self, batch: int) -> Callable[[Any], Any]:
        return self._openvino(batch, INFERENCE_PRECISION_HINT="f32")


def _memory() -> dict[str, float]:
    pss = Path("/proc/self/smaps_rollup").read_text().split("\nPss:")[1].split()[0]
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return {"resident_mb": int(pss) * 1024, "peak_mb": int(peak) * 1024}
