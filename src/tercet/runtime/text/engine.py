"""The engine: a packed model, opened in milliseconds, from token ids to logits.

    folder -> Artifact (mmap) -> families.model(config).text -> native plan over views of the mapped weights

Nothing is repacked: kernels read the file's own bytes. Only t5, and t19 where the instruction set has no kernel for
it, become t2 in anonymous memory when the engine is made. What a step computes for a token does not depend on threads,
instruction set, chunk, cache history or the other sequences of the step: not in a single bit.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import _native, families
from tercet.artifact import Artifact
from tercet.errors import EngineError
from tercet.program import Program
from tercet.runtime.native_program import Tensors, native_program, refuse_unread
from tercet.runtime.text.batch import Batch
from tercet.runtime.text.generation import Generation
from tercet.runtime.text.prompt_cache import Kept, PromptCache, common
from tercet.runtime.text.sampling import Sampling
from tercet.runtime.text.speculation import Pace

__all__ = ["Engine", "Kv", "Sequence"]

Kv = Literal["float16", "int8", "float32"]

CHUNK = 128  # tokens computed at once in a prefill
PROMPT_CACHE_BYTES = 256 << 20

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

    def fork(self, length: int | None = None) -> Sequence:
        """A copy, of the first `length` tokens or of all, that goes its own way from there."""
        length = len(self) if length is None else length
        return self._engine._adopt(self._engine._native.fork(self._native, length), self.ids[:length])


class Engine:
    """A model ready to run.

    Attributes:
        artifact: the opened folder, or None where the engine was made of a program and tensors.
        program: the operations it runs.
        threads: threads that share a step.
        isa: name of the instruction set's kernels.
        context: tokens a sequence may hold.
        prompt_cache: keys and values of finished generations; `clear` empties it.
    """

    def __init__(
        self,
        program: Program,
        tensors: Tensors,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        kv: Kv = "float16",
        context: int | None = None,
        chunk: int = CHUNK,
        prompt_cache_bytes: int = PROMPT_CACHE_BYTES,
    ) -> None:
        """Compile `program` over `tensors`, which are read in place and kept alive.

        Args:
            threads: default: the CPUs this process may use.
            isa: "scalar", "avx2" ...; default: the best this CPU has, or TERCET_ISA.
            activations: "float32" runs every linear on float activations: the check of the packed kernels.
            kv: type of the KV cache; "int8" has a scale for each token and KV head, and half of float16's bytes.
            context: default: the program's. Memory grows with use, not with this.
            chunk: tokens computed at once; changes speed and scratch memory, no result.
            prompt_cache_bytes: most bytes of keys and values that finished generations leave for later prompts that
                begin alike; 0 keeps none.

        Raises EngineError: an option out of range, an unknown instruction set; ModelError: a missing or misshapen
        weight.
        """
        if activations not in ("int8", "float32") or kv not in ("float16", "int8", "float32"):
            raise EngineError(f"activations {activations!r}, kv {kv!r}; use int8 or float32; float16, int8 or float32")
        self.artifact: Artifact | None = None
        self.program = program
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        self.context = program.context if context is None else context
        self._native = _native.Engine(
            native_program(program, tensors, isa),
            isa=isa or "",
            threads=self.threads,
            chunk=chunk,
            quantize=activations == "int8",
            kv=kv,
            context=self.context,
        )
        self.isa: str = self._native.isa
        self.prompt_cache = PromptCache(prompt_cache_bytes)
        self._pace = Pace()
        self._stepped = False
        self._spare: list[NDArray[np.float32]] = []
        self._sequences: weakref.WeakSet[Sequence] = weakref.WeakSet()

    @classmethod
    def open(
        cls,
        source: Artifact | Path | str,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        kv: Kv = "float16",
        context: int | None = None,
        check: bool = False,
        copy: bool = False,
        prompt_cache_bytes: int = PROMPT_CACHE_BYTES,
    ) -> Engine:
        """Open a model folder; options as of the constructor.

        Args:
            check: verify all checksums and codes first.
            copy: as of `Artifact.open`: weights in huge pages of our own memory.

        Raises FormatError: the folder is damaged; ModelError: its architecture is unknown or does not fit its weights.
        """
        artifact = source if isinstance(source, Artifact) else Artifact.open(Path(source), check=check, copy=copy)
        program = families.model(artifact.config["model"]).expect("text").text
        refuse_unread(artifact, program.weights)
        engine = cls(
            program,
            artifact.tensors,
            threads=threads,
            isa=isa,
            activations=activations,
            kv=kv,
            context=context,
            prompt_cache_bytes=prompt_cache_bytes,
        )
        engine.artifact = artifact
        return engine

    @property
    def vocab_size(self) -> int:
        return self.program.vocab_size

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache that living sequences and the prompt cache have written."""
        return sum(sequence.kv_bytes for sequence in self._sequences) + self.prompt_cache.nbytes

    def new_sequence(self) -> Sequence:
        """An empty sequence. Raises EngineError where the address space for its cache cannot be had."""
        return self._adopt(self._native.sequence(), [])

    def _adopt(self, native: _native.Sequence, ids: list[int]) -> Sequence:
        sequence = Sequence(self, native, ids)
        self._sequences.add(sequence)
        return sequence

    def step(self, parts: Iterable[tuple[Sequence, ArrayLike]]) -> NDArray[np.float32]:
        """Extend several sequences at once: each part is a sequence and its new token ids, at least one.

        Returns float32[parts, vocab], the logits after each part's last token, in a new array. Safe from several
        threads; steps run one after the other. Raises EngineError (context exceeded, ids out of range, values not
        finite) and leaves every sequence as it was.
        """
        given: list[tuple[Sequence, NDArray[np.int32] | list[int]]] = [(sequence, _ids(ids)) for sequence, ids in parts]
        wanted = [min(1, len(ids)) for _, ids in given]
        return self._step(given, wanted, self._new_logits(sum(wanted)))

    def logits(self, ids: ArrayLike) -> NDArray[np.float32]:
        """float32[n, vocab]: logits after each of n token ids, in a fresh sequence. Raises EngineError as `step`."""
        checked = _ids(ids)
        return self._step([(self.new_sequence(), checked)], [len(checked)], self._new_logits(len(checked)))

    def _new_logits(self, rows: int) -> NDArray[np.float32]:
        return np.empty((rows, self.vocab_size), np.float32)

    def _step(
        self,
        parts: list[tuple[Sequence, NDArray[np.int32] | list[int]]],
        wanted: list[int],
        logits: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """`logits`, float32[sum(wanted), vocab], filled: those after the last `wanted` ids of each part."""
        self._native.step([sequence._native for sequence, _ in parts], [ids for _, ids in parts], wanted, logits)
        for sequence, ids in parts:
            sequence.ids.extend(ids if isinstance(ids, list) else ids.tolist())
        if not self._stepped:  # now the weights' pages are there
            self._stepped = True
            if self.artifact is not None and log.isEnabledFor(logging.INFO):
                log.info("%s: %s", self.artifact.folder, _pages(self.artifact.huge_page_share()))
        return logits

    def generate(
        self,
        ids: ArrayLike,
        sampling: Sampling | None = None,
        stop_ids: Collection[int] = (),
        *,
        sequence: Sequence | None = None,
        speculate: bool = True,
    ) -> Iterator[int]:
        """New token ids after `ids`, one by one; ends before a stop id, after max_tokens or when the context is full.

        Args:
            ids: the whole text so far, at least one id.
            sampling: default: greedy.
            sequence: a cache to use and leave behind: what it shares with `ids` is not computed again. Default: the
                engine's prompt cache, which keeps this text too.
            speculate: compute tokens that are likely to come along with the next one, where that is faster; the
                tokens are the same either way (`tercet.runtime.text.speculation`).

        Raises EngineError as `step` does, from the first `next`.
        """
        generation = self._generation(ids, sampling, stop_ids, speculate=speculate)
        if generation.ended:
            return
        if sequence is None:
            self._begin(generation)
        else:
            shared = min(common(np.array(sequence.ids, np.int32), generation.prompt), generation.prompt_tokens - 1)
            sequence.rewind(shared)
            generation.begin(sequence, shared)
        try:
            while not generation.ended:
                yield from self._advance([(generation, generation.part())])[0]
        finally:
            if sequence is None:
                self._keep(generation)

    def generate_batch(
        self,
        prompts: Iterable[ArrayLike],
        sampling: Sampling | Iterable[Sampling] | None = None,
        stop_ids: Collection[int] = (),
    ) -> list[list[int]]:
        """The answers to several prompts, computed together: for each the tokens `generate` gives.

        Args:
            sampling: for all prompts, or one for each.

        Raises EngineError as `step` does, before anything is computed where a prompt cannot be run.
        """
        texts = list(prompts)
        each = [sampling] * len(texts) if sampling is None or isinstance(sampling, Sampling) else list(sampling)
        if len(each) != len(texts):
            raise EngineError(f"{len(texts)} prompts, but {len(each)} settings; give one for all, or one for each")
        batch = Batch(self)
        generations = [batch.add(ids, own, stop_ids) for ids, own in zip(texts, each, strict=True)]
        while len(batch):
            batch.step()
        return [generation.tokens for generation in generations]

    def _generation(
        self, ids: ArrayLike, sampling: Sampling | None, stop_ids: Collection[int], *, speculate: bool
    ) -> Generation:
        return Generation(self, _ids(ids), sampling or Sampling(), stop_ids, speculate=speculate)

    def _begin(self, generation: Generation, others: Iterable[Sequence] = ()) -> None:
        """Start it from what the prompt cache, or one of `others`, shares with its prompt."""
        running = [Kept(np.array(other.ids, np.int32), other._native) for other in others]
        found = self.prompt_cache.best(generation.prompt, running)
        if found is None:
            generation.begin(self.new_sequence(), 0)
            return
        # At least one token is computed: its logits are what comes next.
        shared = min(found[1], generation.prompt_tokens - 1)
        ids = generation.prompt[:shared].tolist()
        generation.begin(self._adopt(self._native.fork(found[0].native, shared), ids), shared)

    def _keep(self, generation: Generation) -> None:
        """Leave what a generation computed to the prompt cache."""
        if generation.sequence is not None:
            self.prompt_cache.keep(generation.sequence.ids, generation.sequence._native)
            generation.sequence = None

    def _advance(self, parts: list[tuple[Generation, tuple[NDArray[np.int32] | list[int], int]]]) -> list[list[int]]:
        """Compute a part of each generation in one step: the new tokens of each.

        For each token of an answer this runs once with cold caches: plain lists, few calls into numpy.
        """
        wanted = [count for _, (_, count) in parts]
        rows = sum(wanted)
        kept = self._lent(rows)
        logits = kept if len(kept) == rows else kept[:rows]
        begin = time.perf_counter()
        self._step([(generation.running, ids) for generation, (ids, _) in parts], wanted, logits)
        if len(parts) == 1 and rows == len(parts[0][1][0]):
            self._pace.timed(rows, time.perf_counter() - begin)
        made, first = [], 0
        for (generation, _), count in zip(parts, wanted, strict=True):
            made.append(generation.take(logits, range(first, first + count)))
            first += count
        if not self._spare:
            self._spare.append(kept)
        return made

    def _lent(self, rows: int) -> NDArray[np.float32]:
        """Logits kept between steps, at least `rows`; no other thread has them until they are in `_spare` again."""
        try:
            kept = self._spare.pop()
        except IndexError:
            return self._new_logits(rows)
        return kept if len(kept) >= rows else self._new_logits(rows)


def _pages(share: float | None) -> str:
    return "page sizes are not known here" if share is None else f"{share:.0%} of the weights lie in huge pages"


def _ids(ids: ArrayLike) -> NDArray[np.int32]:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise EngineError(f"token ids are {array.dtype}{list(array.shape)}; a flat list of integers is needed")
    if array.size and (array.min() < 0 or array.max() >= 2**31):
        raise EngineError("a token id is negative or beyond 2^31")
    return np.ascontiguousarray(array, np.int32)
