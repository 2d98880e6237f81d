"""The engine: a packed model, opened in milliseconds, from token ids to logits.

    folder -> Artifact (mmap) -> families.program(config) -> native plan over views of the mapped weights

Nothing is repacked: kernels read the file's own bytes. Only t19 and t5, which no kernel reads yet, become t2 in
anonymous memory when the engine is made. What a step computes for a token does not depend on threads, instruction
set, chunk, cache history or the other sequences of the step: not in a single bit.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import _native, kernels
from tercet.artifact import Artifact
from tercet.errors import EngineError, ModelError, QuantizeError
from tercet.families import program as program_of
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Program
from tercet.runtime.sampling import Sampling

__all__ = ["Engine", "Sequence"]

CHUNK = 128  # tokens computed at once in a prefill
CONVERTED = ("t19", "t5")

Tensors = Mapping[str, PackedTensor | NDArray[np.float32]]

log = logging.getLogger(__name__)


class Sequence:
    """The KV cache of one text: made by `Engine.new_sequence`, extended by `Engine.step`.

    Attributes:
        ids: the tokens whose keys and values are held.
    """

    def __init__(self, engine: Engine, native: _native.Sequence, ids: list[int]) -> None:
        self._engine = engine
        self._native = native
        self.ids = ids

    def __len__(self) -> int:
        return self._native.length

    @property
    def kv_bytes(self) -> int:
        """Bytes of cache written so far, in whole blocks of 64 positions."""
        return self._native.kv_bytes

    def rewind(self, length: int) -> None:
        """Forget all tokens from `length` on. Raises EngineError where there are fewer."""
        self._engine._native.rewind(self._native, length)
        del self.ids[length:]

    def fork(self) -> Sequence:
        """A copy that goes its own way from here."""
        return self._engine._adopt(self._engine._native.fork(self._native), list(self.ids))


class Engine:
    """A model ready to run.

    Attributes:
        artifact: the opened folder, or None where the engine was made of a program and tensors.
        program: the operations it runs.
        threads: threads that share a step.
        isa: name of the instruction set's kernels.
        context: tokens a sequence may hold.
    """

    def __init__(
        self,
        program: Program,
        tensors: Tensors,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        kv: Literal["float16", "float32"] = "float16",
        context: int | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """Compile `program` over `tensors`, which are read in place and kept alive.

        Args:
            threads: default: the CPUs this process may use.
            isa: "scalar", "avx2" ...; default: the best this CPU has, or TERCET_ISA.
            activations: "float32" runs every linear on float activations: the check of the packed kernels.
            kv: type of the KV cache.
            context: default: the program's. Memory grows with use, not with this.
            chunk: tokens computed at once; changes speed and scratch memory, no result.

        Raises EngineError: an option out of range, an unknown instruction set; ModelError: a missing or misshapen
        weight.
        """
        if activations not in ("int8", "float32") or kv not in ("float16", "float32"):
            raise EngineError(f"activations {activations!r}, kv {kv!r}; use int8 or float32, float16 or float32")
        self.artifact: Artifact | None = None
        self.program = program
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self.context = program.context if context is None else context
        self._native = _native.Engine(
            _build(program, tensors),
            isa=isa or "",
            threads=self.threads,
            chunk=chunk,
            quantize=activations == "int8",
            kv_float32=kv == "float32",
            context=self.context,
        )
        self.isa: str = self._native.isa
        self._sequences: weakref.WeakSet[Sequence] = weakref.WeakSet()

    @classmethod
    def open(
        cls,
        source: Artifact | Path | str,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        kv: Literal["float16", "float32"] = "float16",
        context: int | None = None,
        check: bool = False,
    ) -> Engine:
        """Open a model folder; options as of the constructor. `check` verifies all checksums and codes first.

        Raises FormatError: the folder is damaged; ModelError: its architecture is unknown or does not fit its weights.
        """
        artifact = source if isinstance(source, Artifact) else Artifact.open(Path(source), check=check)
        program = program_of(artifact.config["model"])
        if unread := sorted(set(artifact.tensors) - set(program.weights)):
            raise ModelError(
                f"{artifact.folder}: config.json describes a model without {unread[0]} ({len(unread)} tensors unread);"
                " it was edited, or the folder is of another version: quantize again"
            )
        engine = cls(
            program,
            artifact.tensors,
            threads=threads,
            isa=isa,
            activations=activations,
            kv=kv,
            context=context,
        )
        engine.artifact = artifact
        return engine

    @property
    def vocab_size(self) -> int:
        return self.program.vocab_size

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache that living sequences have written."""
        return sum(sequence.kv_bytes for sequence in self._sequences)

    def new_sequence(self) -> Sequence:
        """An empty sequence. Raises EngineError where the address space for its cache cannot be had."""
        return self._adopt(self._native.sequence(), [])

    def _adopt(self, native: _native.Sequence, ids: list[int]) -> Sequence:
        sequence = Sequence(self, native, ids)
        self._sequences.add(sequence)
        return sequence

    def step(self, parts: Iterable[tuple[Sequence, ArrayLike]]) -> NDArray[np.float32]:
        """Extend several sequences at once: each part is a sequence and its new token ids, at least one.

        Returns float32[parts, vocab], the logits after each part's last token. Safe from several threads; steps run
        one after the other. Raises EngineError (context exceeded, ids out of range, values not finite) and leaves
        every sequence as it was.
        """
        return self._step(list(parts), every=False)

    def logits(self, ids: ArrayLike) -> NDArray[np.float32]:
        """float32[n, vocab]: logits after each of n token ids, in a fresh sequence. Raises EngineError as `step`."""
        return self._step([(self.new_sequence(), ids)], every=True)

    def _step(self, parts: list[tuple[Sequence, ArrayLike]], *, every: bool) -> NDArray[np.float32]:
        arrays = [_ids(ids) for _, ids in parts]
        rows = sum(len(ids) for ids in arrays) if every else len(arrays)
        logits = np.empty((rows, self.vocab_size), np.float32)
        self._native.step([sequence._native for sequence, _ in parts], arrays, every, logits)
        for (sequence, _), ids in zip(parts, arrays, strict=True):
            sequence.ids.extend(ids.tolist())
        return logits

    def generate(
        self,
        ids: ArrayLike,
        sampling: Sampling | None = None,
        stop_ids: Collection[int] = (),
        *,
        sequence: Sequence | None = None,
    ) -> Iterator[int]:
        """New token ids after `ids`, one by one; ends before a stop id, after max_tokens or when the context is full.

        Args:
            ids: the whole text so far, at least one id.
            sampling: default: greedy.
            sequence: a cache to use and leave behind: what it shares with `ids` is not computed again.

        Raises EngineError as `step` does, from the first `next`.
        """
        prompt = _ids(ids)
        sampling = sampling or Sampling()
        sequence = sequence if sequence is not None else self.new_sequence()
        # At least one token is computed: its logits are what comes next.
        shared = min(_common(sequence.ids, prompt.tolist()), max(len(prompt) - 1, 0))
        sequence.rewind(shared)
        sampler = sampling.sampler(self.vocab_size)
        new = prompt[shared:]
        made = 0
        while sampling.max_tokens is None or made < sampling.max_tokens:
            logits = self.step([(sequence, new)])
            if made == 0:
                sampler.accept(prompt)
            token = sampler.sample(logits[0])
            if token in stop_ids:
                return
            yield token
            made += 1
            if len(sequence) == self.context:
                return
            new = np.array([token], np.int32)
            sampler.accept(new)


def _ids(ids: ArrayLike) -> NDArray[np.int32]:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise EngineError(f"token ids are {array.dtype}{list(array.shape)}; a flat list of integers is needed")
    if array.size and (array.min() < 0 or array.max() >= 2**31):
        raise EngineError("a token id is negative or beyond 2^31")
    return np.ascontiguousarray(array, np.int32)


def _common(a: list[int], b: list[int]) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _build(program: Program, tensors: Tensors) -> _native.ProgramBuilder:
    """The program as the native side takes it; matrices are views of `tensors`' memory."""
    builder = _native.ProgramBuilder()
    converted = []
    for name, weight in program.weights.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise ModelError(f"weight {name} is missing from the model's tensors")
        if tuple(tensor.shape) != tuple(weight.shape):
            raise ModelError(f"{name} has shape {list(tensor.shape)}; the model needs {list(weight.shape)}")
        if isinstance(tensor, PackedTensor) and tensor.format in CONVERTED:
            converted.append(name)
            tensor = pack(unpack(tensor), "t2")
        if len(weight.shape) == 2:
            builder.matrix(name, _matrix(name, tensor))
        else:
            builder.vector(name, _floats(name, tensor))
    if converted:
        log.warning("%d matrices stored as t19 or t5 are converted to t2 in memory", len(converted))
    builder.vocab(program.vocab_size)
    for name, width in program.widths.items():
        builder.width(name, width)
    for rope in program.ropes:
        builder.rope(np.ascontiguousarray(rope.inv_freq, np.float32), rope.factor)
    for op in program.ops:
        builder.op(
            op.kind, list(op.inputs), op.output, op.weight, op.bias, op.eps, op.dim, op.offset, op.factor,
            op.heads, op.kv_heads, op.head_dim, op.window, op.layer, op.rope, op.function,
        )  # fmt: skip
    return builder


def _matrix(name: str, tensor: PackedTensor | NDArray[np.float32]) -> _native.Matrix:
    try:
        return kernels.matrix(tensor if isinstance(tensor, PackedTensor) else pack(tensor, "f32"))
    except (EngineError, QuantizeError) as error:
        raise ModelError(f"{name}: {error}") from None


def _floats(name: str, tensor: PackedTensor | NDArray[np.float32]) -> NDArray[np.float32]:
    if isinstance(tensor, PackedTensor):
        raise ModelError(f"{name} is stored as a matrix ({tensor.format}); the model needs a vector")
    return np.ascontiguousarray(tensor, np.float32)
