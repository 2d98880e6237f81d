"""Whole models by a peer's libllama, through its own package's bindings; the same methods as speed.engine's.

Peers run in their best mode: weights read into memory (no mmap) so that malloc gives huge pages and the loader may
repack them, flash attention as each library chooses, micro-batches of 512.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.peers import PEERS, Peer
from speed.process import peak_mb, pin, unpin

MICRO_BATCH = 512
ANY_SEQUENCE = -1


class _Library:
    """What the two packages call by different names."""

    def __init__(self, peer: Peer) -> None:
        self.new = peer.name == "llama.cpp"
        # The packages' __init__ import far more than the bindings; a bare module in its place does not.
        package = types.ModuleType(peer.package)
        package.__path__ = [str(peer.unpacked / peer.package)]
        sys.modules[peer.package] = package
        os.environ["LLAMA_CPP_LIB_PATH"] = str(peer.libraries)
        os.environ["IK_LLAMA_CPP_LIB_PATH"] = str(peer.libraries / "libllama.so")
        self.api = importlib.import_module(f"{peer.package}.{'llama_cpp' if self.new else '_ctypes_api'}")
        self.raw = ctypes.CDLL(str(peer.libraries / "libllama.so"))
        self.silence = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.raw.llama_log_set(self.silence, None)
        self.api.llama_backend_init()
        pointer, number = ctypes.c_void_p, ctypes.c_int32
        self.raw.llama_set_n_threads.argtypes = (pointer, number, number)
        name = "llama_memory_seq_rm" if self.new else "llama_kv_cache_seq_rm"
        self.remove = getattr(self.raw, name)
        self.remove.argtypes = (pointer, number, number, number)
        self.remove.restype = ctypes.c_bool

    def free(self, model: int, context: int) -> None:
        self.api.llama_free(context)
        (self.api.llama_model_free if self.new else self.api.llama_free_model)(model)

    def cache(self, context: int) -> int:
        """What `remove` takes first."""
        return int(self.api.llama_get_memory(context)) if self.new else context


class _Model:
    """A loaded model with a context of its own."""

    def __init__(self, library: _Library, path: str, threads: int, context: int, batch: int, mmap: bool) -> None:
        self.library, self.threads, api = library, threads, library.api
        settings = api.llama_model_default_params()
        settings.use_mmap = mmap
        self.model = api.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise OSError(f"{path}: not loaded")
        options = api.llama_context_default_params()
        options.n_ctx = context * batch
        options.n_batch = max(MICRO_BATCH, batch)
        options.n_ubatch = MICRO_BATCH
        options.n_seq_max = batch
        options.n_threads = options.n_threads_batch = threads
        self.context = api.llama_init_from_model(self.model, options)
        if not self.context:
            raise OSError(f"{path}: no context of {options.n_ctx}")
        self.vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(MICRO_BATCH, 0, 1)
        self.length = 0

    def step(self, parts: list[tuple[int, int, int]], wanted: bool = True) -> None:
        """Tokens (sequence, position, id) at once; the last one's logits are wanted, of several sequences all."""
        several = len({sequence for sequence, _, _ in parts}) > 1
        self.batch.n_tokens = len(parts)
        for i, (sequence, position, token) in enumerate(parts):
            self.batch.token[i] = token
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = wanted and (several or i + 1 == len(parts))
        if self.library.api.llama_decode(self.context, self.batch):
            raise RuntimeError("llama_decode failed")

    def feed(self, ids: list[int]) -> None:
        """A whole prompt into an empty cache, a micro-batch at a time."""
        self.cut(0)
        for first in range(0, len(ids), MICRO_BATCH):
            part = ids[first : first + MICRO_BATCH]
            self.step([(0, first + i, token) for i, token in enumerate(part)], first + len(part) == len(ids))
        self.length = len(ids)

    def cut(self, length: int) -> None:
        """Forgets what comes after, in every sequence."""
        self.library.remove(self.library.cache(self.context), ANY_SEQUENCE, length, -1)
        self.length = length

    def logits(self) -> NDArray[np.float32]:
        """float32[vocab] after the last token; reading them ends the step."""
        found = self.library.api.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(found, (self.vocab,))


class Models:
    """Opened models by key."""

    def __init__(self, name: str) -> None:
        self.library = _Library(next(peer for peer in PEERS if peer.name == name))
        self.models: dict[str, _Model] = {}

    def open(self, key: str, path: str, threads: int, context: int, batch: int = 1, mmap: bool = False) -> Any:
        """Seconds until the model could take a token, and until it gave the first logits."""
        unpin()
        start = time.perf_counter()
        model = _Model(self.library, path, threads, context, batch, mmap)
        opened = time.perf_counter() - start
        model.feed([1])
        model.logits()
        self.models[key] = model
        return {"open": opened, "first": time.perf_counter() - start}

    def logits(self, key: str, ids: list[int], place: str) -> None:
        """Writes the logits after the last of the ids, float32[vocab], to a .npy file."""
        model = self.models[key]
        model.feed(ids)
        np.save(place, model.logits())

    def fill(self, key: str, tokens: int) -> float:
        """Seconds for a prompt of that many tokens in an empty cache, logits after the last."""
        model = self.models[key]
        ids = [i * 7 % model.vocab for i in range(1, tokens + 1)]
        pin(model.threads)
        start = time.perf_counter()
        model.feed(ids)
        model.logits()
        return time.perf_counter() - start

    def decode(self, key: str, tokens: int) -> float:
        """Seconds a token for decoding `tokens` after what `fill` left; the cache is as before afterwards."""
        model = self.models[key]
        pin(model.threads)
        length = model.length
        start = time.perf_counter()
        for i in range(tokens):
            model.step([(0, length + i, i % model.vocab)])
            model.logits()
        spent = time.perf_counter() - start
        model.cut(length)
        return spent / tokens

    def batch(self, key: str, size: int, steps: int) -> float:
        """Seconds a step in which `size` sequences get a token each."""
        model = self.models[key]
        pin(model.threads)
        model.cut(0)
        model.step([(sequence, 0, 1) for sequence in range(size)])
        start = time.perf_counter()
        for i in range(steps):
            model.step([(sequence, i + 1, i) for sequence in range(size)])
            model.logits()
        spent = (time.perf_counter() - start) / steps
        model.cut(0)
        return spent

    def close(self, key: str) -> None:
        """Frees a model."""
        model = self.models.pop(key)
        self.library.free(model.model, model.context)

    def memory(self, path: str, context: int, mmap: bool) -> dict[str, float]:
        """The growth of this process by opening a model and 128 tokens: as the product measures."""
        before = pss()
        self.open("memory", path, 1, context, mmap=mmap)
        self.fill("memory", 1)
        self.decode("memory", 127)
        after = pss()
        return {"resident_mb": (after - before) / 1e6, "peak_mb": peak_mb()}


def pss() -> int:
    """Bytes of this process and its share of what it shares."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise OSError("no Pss in /proc/self/smaps_rollup")
