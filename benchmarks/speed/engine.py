"""Whole models by the product's engine; the same methods as speed.llama's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.process import peak_mb, pin, unpin
from tercet.runtime import Engine, Sequence
from tercet.runtime.residency import measure


class Models:
    """Opened models by key; a model's threads and instruction set are its own."""

    def __init__(self) -> None:
        self.engines: dict[str, Engine] = {}
        self.sequences: dict[str, list[Sequence]] = {}

    def open(self, key: str, path: str, threads: int, context: int, batch: int = 1, isa: str | None = None) -> Any:
        """Seconds until the model could take a token, and until it gave the first logits."""
        unpin()
        start = time.perf_counter()
        engine = Engine.open(Path(path), threads=threads, isa=isa, context=context)
        opened = time.perf_counter() - start
        engine.step([(engine.new_sequence(), [1])])
        first = time.perf_counter() - start
        self.engines[key] = engine
        self.sequences[key] = [engine.new_sequence() for _ in range(batch)]
        engine.step([(self.sequences[key][0], [1])])
        return {"open": opened, "first": first, "isa": engine.isa}

    def logits(self, key: str, ids: list[int], place: str) -> None:
        """Writes the logits after the last of the ids, float32[vocab], to a .npy file."""
        engine = self.engines[key]
        np.save(place, engine.step([(engine.new_sequence(), ids)])[0])

    def fill(self, key: str, tokens: int) -> float:
        """Seconds for a prompt of that many tokens in an empty cache, logits after the last."""
        engine, sequence = self.engines[key], self.sequences[key][0]
        pin(engine.threads)
        sequence.rewind(0)
        start = time.perf_counter()
        engine.step([(sequence, prompt(tokens, engine.vocab_size))])
        return time.perf_counter() - start

    def decode(self, key: str, tokens: int) -> float:
        """Seconds a token for decoding `tokens` after what `fill` left; the cache is as before afterwards."""
        engine, sequence = self.engines[key], self.sequences[key][0]
        pin(engine.threads)
        length = len(sequence)
        start = time.perf_counter()
        for i in range(tokens):
            engine.step([(sequence, [i % engine.vocab_size])])
        spent = time.perf_counter() - start
        sequence.rewind(length)
        return spent / tokens

    def batch(self, key: str, size: int, steps: int) -> float:
        """Seconds a step in which `size` sequences get a token each."""
        engine, chosen = self.engines[key], self.sequences[key][:size]
        pin(engine.threads)
        for sequence in chosen:
            sequence.rewind(0)
        engine.step([(sequence, [1]) for sequence in chosen])
        start = time.perf_counter()
        for i in range(steps):
            engine.step([(sequence, [i]) for sequence in chosen])
        return (time.perf_counter() - start) / steps

    def close(self, key: str) -> None:
        """Forgets a model."""
        del self.engines[key], self.sequences[key]

    def memory(self, path: str, context: int) -> dict[str, float]:
        """`tercet.runtime.residency` of a model, 128 tokens; in a process that opened nothing before."""
        _, found = measure(lambda: Engine.open(Path(path), context=context))
        return {"resident_mb": found.resident_mb, "kv_mb": found.kv_mb, "peak_mb": peak_mb()}


def prompt(tokens: int, vocab: int) -> NDArray[np.int32]:
    """int32[tokens], the same for everyone."""
    return np.arange(1, tokens + 1, dtype=np.int32) * 7 % vocab
