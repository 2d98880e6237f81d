"""The engine: a packed model, opened in milliseconds, from token ids to logits.

    folder -> Artifact (mmap) -> families.model(config).text -> native plan over views of the mapped weights

Nothing is repacked: kernels read the file's own bytes. Only t5, and t19 where the instruction set has no kernel for
it, become t2 in anonymous memory when the engine is made. What a step computes for a token does not depend on threads,
instruction set, chunk, cache history or the other sequences of the step: not in a single bit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator
from functools import partial
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
from tercet.runtime.text.generation import Generation, advance
from tercet.runtime.text.given import GivenRows
from tercet.runtime.text.prompt_cache import PromptCache, common
from tercet.runtime.text.sampling import Sampling
from tercet.runtime.text.sequence import Part, Sequence, extend
from tercet.runtime.text.stepper import Stepper, token_ids

__all__ = ["Engine", "Kv"]

Kv = Literal["float16", "int8", "float32"]

CHUNK = 128  # tokens computed at once in a prefill
PROMPT_CACHE_BYTES = 256 << 20

log = logging.getLogger(__name__)


class Engine:
    """A model ready to run.

    Attributes:
        artifact: the opened folder, or None where the engine was made of a program and tensors.
        program: the operations it runs.
        threads: threads that share a step.
        isa: name of the instruction set's kernels.
        context: tokens a sequence may hold.
        stepper: the compiled program.
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
        native = _native.Engine(
            native_program(program, tensors, isa),
            isa=isa or "",
            threads=self.threads,
            chunk=chunk,
            quantize=activations == "int8",
            kv=kv,
            context=self.context,
        )
        self.stepper = Stepper(native, vocab_size=program.vocab_size, context=self.context)
        self.isa = self.stepper.isa
        self.prompt_cache = PromptCache(self.stepper, prompt_cache_bytes)

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
        engine.stepper.after_first = partial(_tell_pages, artifact)
        return engine

    @property
    def vocab_size(self) -> int:
        return self.program.vocab_size

    @property
    def kv_bytes(self) -> int:
        """Bytes of KV cache that living sequences and the prompt cache have written."""
        return self.stepper.kv_bytes

    def new_sequence(self) -> Sequence:
        """An empty sequence. Raises EngineError where the address space for its cache cannot be had."""
        return Sequence(self.stepper)

    def give_rows(self, rows: ArrayLike) -> GivenRows:
        """Rows float32[n, width] to stand in texts where tokens do, such as a picture's: `ids` of the result name them.

        They are what the model's `embed` would have given, its factor included. The result has to be kept as long as
        its ids are used; generations, sequences and the prompt cache do so for theirs. The same rows have the same ids
        as long as they live; ids are not used again for others. Logits, sampling and stop ids know only the vocabulary.

        Raises EngineError: another shape, values that are not finite.
        """
        return self.stepper.given.give(rows)

    def step(self, parts: Iterable[tuple[Sequence, ArrayLike]]) -> NDArray[np.float32]:
        """Extend several sequences at once: each part is a sequence and its new token ids, at least one.

        Returns float32[parts, vocab], the logits after each part's last token, in a new array. Safe from several
        threads; steps run one after the other. Raises EngineError (context exceeded, ids out of range, values not
        finite) and leaves every sequence as it was.
        """
        given: list[Part] = [(sequence, token_ids(ids)) for sequence, ids in parts]
        wanted = [min(1, len(ids)) for _, ids in given]
        return extend(self.stepper, given, wanted, self.stepper.new_logits(sum(wanted)))

    def logits(self, ids: ArrayLike) -> NDArray[np.float32]:
        """float32[n, vocab]: logits after each of n token ids, in a fresh sequence. Raises EngineError as `step`."""
        checked = token_ids(ids)
        logits = self.stepper.new_logits(len(checked))
        return extend(self.stepper, [(self.new_sequence(), checked)], [len(checked)], logits)

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
        generation = Generation(self.stepper, ids, sampling, stop_ids, speculate=speculate)
        if generation.ended:
            return
        if sequence is None:
            generation.begin(self.prompt_cache.sequence(generation.prompt))
        else:
            shared = common(np.array(sequence.ids, np.int32), generation.prompt)
            sequence.rewind(min(shared, generation.prompt_tokens - 1))
            generation.begin(sequence)
        try:
            while not generation.ended:
                yield from advance(self.stepper, [(generation, generation.part())])[0]
        finally:
            if sequence is None:
                generation.leave(self.prompt_cache)

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


def _tell_pages(artifact: Artifact) -> None:
    if log.isEnabledFor(logging.INFO):
        share = artifact.huge_page_share()
        told = "page sizes are not known here" if share is None else f"{share:.0%} of the weights lie in huge pages"
        log.info("%s: %s", artifact.folder, told)
