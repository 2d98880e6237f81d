"""Whole models: decoding, prompts, batches, opening, memory - against every peer at its best ternary type.

Each case opens its entrants, checks that they compute the same model, and gives them turns. Random weights: only speed
and size mean something. Embedding and head are 4-bit for everyone (ours 4.25 bits a weight, Q4_0 4.5) unless a row says
otherwise; the KV cache is float16 for everyone.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.ggml import TYPES
from speed.gguf_models import gguf
from speed.matrices import peer_scales
from speed.models import SHAPES, Shape, folder
from speed.turns import Failed, Worker, median, quartiles, rounds
from speed.weights import relative_error

# Relative error between the logits of one model in two runtimes, both with int8 activations.
SAME = 0.15
AFTER = 64  # tokens in the cache when decoding starts


@dataclass(frozen=True)
class Entrant:
    """One file in one runtime. `kind` is the blocks' type, `group` 0 for row scales, `isa` "" for the default."""

    runtime: str
    kind: str
    head: str
    group: int = 0
    isa: str = ""

    @property
    def ours(self) -> bool:
        return self.runtime == "tercet"

    @property
    def label(self) -> str:
        parts = [self.kind, f"g{self.group}" if self.group else "", f"head {self.head}", self.isa]
        return " ".join([self.runtime, *filter(None, parts)])

    @property
    def scales(self) -> str:
        return (f"per {self.group} columns" if self.group else "per row") if self.ours else peer_scales(self.kind)


@dataclass
class Field:
    """Where entrants run: a worker a runtime, quantizers of the peers' types, and the limits' worker."""

    workers: dict[str, Worker]
    quantizers: dict[str, Worker]
    limits: Worker
    rounds: int

    def path(self, shape: Shape, entrant: Entrant) -> Path:
        """The entrant's file, made where it is missing."""
        if entrant.ours:
            return folder(shape, entrant.kind, entrant.group, entrant.head)
        worker = self.quantizers[entrant.runtime]

        def quantize(values: NDArray[np.float32], kind: str) -> bytes:
            with tempfile.TemporaryDirectory() as place:
                source, target = Path(place) / "values.npy", Path(place) / "bytes"
                np.save(source, values)
                worker.call("quantize", source=str(source), target=str(target), kind=kind)
                return target.read_bytes()

        return gguf(shape, entrant.kind, entrant.head, TYPES, quantize)


@dataclass
class Runner:
    """Entrants opened for a case; closes them at the end."""

    field: Field
    shape: Shape
    entrants: list[Entrant]
    threads: int
    context: int
    batch: int = 1

    def __enter__(self) -> Runner:
        self.opened: dict[Entrant, Any] = {}
        self.failed: dict[str, str] = {}
        for entrant in self.entrants:
            more = {"isa": entrant.isa or None} if entrant.ours else {}
            try:
                path = self.field.path(self.shape, entrant)
                self.opened[entrant] = self.call(
                    entrant,
                    "open",
                    path=str(path),
                    threads=self.threads,
                    context=self.context,
                    batch=self.batch,
                    **more,
                )
            except Failed as error:
                self.failed[entrant.label] = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        for entrant in self.opened:
            with contextlib.suppress(Failed):
                self.call(entrant, "close")

    def call(self, entrant: Entrant, method: str, **arguments: Any) -> Any:
        return self.field.workers[entrant.runtime].call(method, key=entrant.label, **arguments)

    def check(self) -> dict[str, float]:
        """Relative error of everyone's logits against the first of ours; raises where a ternary type differs."""
        ids = [i * 7 % self.shape.vocab for i in range(1, 17)]
        found: dict[str, NDArray[np.float32]] = {}
        with tempfile.TemporaryDirectory() as place:
            for entrant in list(self.opened):
                target = str(Path(place) / "logits.npy")
                try:
                    self.call(entrant, "logits", ids=ids, place=target)
                    found[entrant.label] = np.load(target)
                except Failed as error:
                    self.failed[entrant.label] = str(error)
                    del self.opened[entrant]
        own = next(entrant for entrant in self.opened if entrant.ours and not entrant.group and entrant.head != "t2")
        errors = {label: relative_error(logits, found[own.label]) for label, logits in found.items()}
        for entrant in self.opened:
            rounded = entrant.group or entrant.head == "t2" or entrant.kind.startswith("Q4_0")
            if not rounded and not errors[entrant.label] < SAME:
                raise ArithmeticError(f"{entrant.label}: another model, relative error {errors[entrant.label]:.3g}")
        return errors

    def read(self, turn: Callable[[Entrant], float], *limits: str) -> dict[str, list[float]]:
        """Readings of `turn` for everyone, and of the limits, in rounds."""
        turns: dict[str, Callable[[], float]] = {
            entrant.label: (lambda entrant=entrant: turn(entrant)) for entrant in self.opened
        }
        for what in limits:
            turns[what] = lambda what=what: float(self.field.limits.call("limit", what=what, threads=self.threads))
        read = rounds(turns, self.field.rounds)
        for entrant in [entrant for entrant in self.opened if entrant.label not in read]:
            self.failed[entrant.label] = "failed in its turn"
            del self.opened[entrant]
        return read

    def rows(
        self, case: str, metric: str, read: dict[str, list[float]], work: float, limit: str, cost: float, **more: Any
    ) -> Iterator[dict[str, Any]]:
        """A row for each of ours against the fastest peer.

        Args:
            work: what a reading's seconds are spent on, in the metric's unit.
            limit: name of the limit read in the same rounds.
            cost: what a reading takes of it: operations; bytes are known from the file.
        """
        rates = {label: [work / seconds for seconds in times] for label, times in read.items()}
        peers = {e.label: median(rates[e.label]) for e in self.opened if not e.ours}
        if not peers:
            return
        best = next(e for e in self.opened if e.label == max(peers, key=peers.__getitem__))
        for entrant in self.opened:
            if not entrant.ours:
                continue
            isa = self.opened[entrant]["isa"]
            name = "amx" if limit == "vnni" and isa == "amx" else limit
            spent = median(read[entrant.label])
            used = (file_bytes(self.field.path(self.shape, entrant)) if limit == "dram" else cost) / spent
            ours = median(rates[entrant.label])
            yield {
                "case": case, "metric": metric, "threads": self.threads, "isa": isa,
                "model": f"{entrant.kind}, head {entrant.head}", "scales": entrant.scales,
                "ours": ours, "ours_quartiles": quartiles(rates[entrant.label]),
                "peer": best.label, "peer_scales": best.scales, "peer_value": peers[best.label],
                "peer_quartiles": quartiles(rates[best.label]), "ratio": ours / peers[best.label],
                "limit": {"dram": "DRAM", "vnni": "VNNI peak", "amx": "AMX peak"}[name],
                "limit_value": median(read[name]) / 1e9, "limit_share": used / median(read[name]),
                "peers": peers, "failed": self.failed, **more,
            }  # fmt: skip


def file_bytes(path: Path) -> int:
    """A model's file, or all of its folder."""
    return sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size


def ours(kind: str = "t2", head: str = "q4", group: int = 0, isa: str = "") -> Entrant:
    return Entrant("tercet", kind, head, group, isa)


def decode(field: Field, name: str, entrants: list[Entrant], threads: int, tokens: int) -> Iterator[dict[str, Any]]:
    """decode_NAME: tokens a second, one sequence, after 64 tokens."""
    shape = SHAPES[name]
    with Runner(field, shape, entrants, threads, context=1024) as runner:
        errors = runner.check()
        for entrant in runner.opened:
            runner.call(entrant, "fill", tokens=AFTER)
        read = runner.read(lambda entrant: runner.call(entrant, "decode", tokens=tokens), "dram")
        yield from runner.rows(f"decode_{name}", "tokens/s", read, 1, "dram", 0, logits_errors=errors)


def prefill(field: Field, name: str, entrants: list[Entrant], threads: int, tokens: int) -> Iterator[dict[str, Any]]:
    """prefillN_NAME: tokens a second for a prompt of N tokens."""
    shape = SHAPES[name]
    operations = 2.0 * tokens * (shape.weights - shape.vocab * shape.width)
    with Runner(field, shape, entrants, threads, context=1024) as runner:
        runner.check()
        for entrant in runner.opened:
            runner.call(entrant, "fill", tokens=AFTER)
        read = runner.read(lambda entrant: runner.call(entrant, "fill", tokens=tokens), "vnni", "amx")
        yield from runner.rows(f"prefill{tokens}_{name}", "tokens/s", read, tokens, "vnni", operations)


def by_context(
    field: Field, name: str, entrants: list[Entrant], threads: int, lengths: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """decode_NAME_ctxN: tokens a second with N tokens in the cache."""
    with Runner(field, SHAPES[name], entrants, threads, context=max(lengths) + 64) as runner:
        for length in lengths:
            for entrant in runner.opened:
                runner.call(entrant, "fill", tokens=length)
            read = runner.read(lambda entrant: runner.call(entrant, "decode", tokens=16), "dram")
            yield from runner.rows(f"decode_{name}_ctx{length}", "tokens/s", read, 1, "dram", 0)


def _batch(runner: Runner, size: int, steps: int, entrant: Entrant) -> float:
    return float(runner.call(entrant, "batch", size=size, steps=steps))


def by_batch(
    field: Field, name: str, entrants: list[Entrant], threads: int, sizes: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """decode_NAME_batchN: tokens a second of N sequences together."""
    shape = SHAPES[name]
    with Runner(field, shape, entrants, threads, context=64, batch=max(sizes)) as runner:
        for size in sizes:
            steps = 2 if size > 8 else 8
            read = runner.read(partial(_batch, runner, size, steps), "vnni", "amx")
            yield from runner.rows(
                f"decode_{name}_batch{size}", "tokens/s", read, size, "vnni", 2.0 * size * shape.weights
            )
