"""The encoder: a packed model of pictures and texts, opened in milliseconds, from pixels or ids to embeddings.

    folder -> Artifact (mmap) -> families.model(config), narrowed -> a native plan for each over the mapped weights

Weights are read as the engine reads them (`tercet.runtime.native_program`); a tower with matrices that no kernel reads
as they are stored (t5) is made when it is first used. Big batches are computed a chunk at a time, so that activations
stay small. An embedding is the same, to the bit, whatever the batch, the threads and the instruction set. It is not
normalised: what a picture and a text have in common is

    exp(scale) * <i/|i|, t/|t|> + bias
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import _native, families, kernels
from tercet.artifact import Artifact
from tercet.errors import EngineError, ModelError
from tercet.families import narrowed
from tercet.packing import PackedTensor
from tercet.program import Model, Program
from tercet.runtime.locks import ForkLock
from tercet.runtime.native_program import Tensors, converts, native_program, refuse_unread

__all__ = ["Encoder"]

CHUNK = 256  # rows (patches or tokens) computed at once

Floats = NDArray[np.float32]


class Encoder:
    """Both towers of a model, ready to run. Safe from several threads; calls of one tower take turns.

    Attributes:
        artifact: the opened folder, or None where the encoder was made of programs and tensors.
        towers: the programs it runs.
        threads: threads that share a call.
        isa: name of the instruction set's kernels.
        dim: columns of an embedding.
        image_size: (height, width) of a picture in pixels.
        context: the longest text, in tokens.
        logit_scale: already exponentiated.
        logit_bias: 0 where the model has none.
    """

    def __init__(
        self,
        towers: Model,
        tensors: Tensors,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        chunk: int = CHUNK,
    ) -> None:
        """Compile both programs over `tensors`, which are read in place and kept alive.

        Args:
            threads: default: the CPUs this process may use.
            isa: "scalar", "avx2" ...; default: the best this CPU has, or TERCET_ISA.
            activations: "float32" runs every linear on float activations: the check of the packed kernels.
            chunk: rows computed at once, a whole sequence at least; changes speed and memory, no result.

        Raises EngineError: an option out of range, an unknown instruction set; ModelError: a missing or misshapen
        weight.
        """
        if activations not in ("int8", "float32"):
            raise EngineError(f"activations {activations!r}; use int8 or float32")
        self.artifact: Artifact | None = None
        self.towers = towers
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads

        def compiled(program: Program, converted: bool) -> _native.Tower:
            made = _native.Tower(
                native_program(program, tensors, isa),
                isa=isa or "",
                threads=self.threads,
                chunk=chunk,
                quantize=activations == "int8",
                context=program.context,
            )
            if converted and self.artifact is not None:
                self.artifact.release()
            return made

        if self.threads < 1 or chunk < 1:
            raise EngineError(f"threads {self.threads}, chunk {chunk}; both are 1 at least")
        # What has to be converted waits until it is needed: whoever embeds pictures has no room for texts to spare.
        waits = [converts(program, tensors, isa) for program in (towers.image, towers.text)]
        self._image = _Late(partial(compiled, towers.image, waits[0]), wait=waits[0])
        self._text = _Late(partial(compiled, towers.text, waits[1]), wait=waits[1])
        self.isa: str = isa or kernels.default_backend()
        self.dim = towers.image.widths["embedding"]
        self.image_size = (towers.pixels.size, towers.pixels.size)
        self.context = towers.text.context
        self.logit_scale = _scale(tensors, towers.scale)
        self.logit_bias = _scalar(tensors, towers.bias) if towers.bias else 0.0

    @classmethod
    def open(
        cls,
        source: Artifact | Path | str,
        *,
        threads: int | None = None,
        isa: str | None = None,
        activations: Literal["int8", "float32"] = "int8",
        check: bool = False,
        copy: bool = False,
    ) -> Encoder:
        """Open a model folder; options as of the constructor.

        Args:
            check: verify all checksums and codes first.
            copy: as of `Artifact.open`: weights in huge pages of our own memory.

        Raises FormatError: the folder is damaged; ModelError: its architecture is unknown or does not fit its weights.
        """
        artifact = source if isinstance(source, Artifact) else Artifact.open(Path(source), check=check, copy=copy)
        towers = families.model(artifact.config["model"]).expect("pair")
        refuse_unread(artifact, towers.weights)
        towers = replace(towers, parts={name: narrowed(part) for name, part in towers.parts.items()})
        encoder = cls(towers, artifact.tensors, threads=threads, isa=isa, activations=activations)
        encoder.artifact = artifact
        return encoder

    def encode_pixels(self, pixels: ArrayLike) -> Floats:
        """Embeddings of pictures.

        Args:
            pixels: float32[n, 3, height, width], normalised as the model wants them; n may be 0.

        Returns float32[n, dim]. Raises EngineError: another shape, values that are not finite.
        """
        array = np.asarray(pixels)
        wanted = (3, *self.image_size)
        if array.ndim != 4 or array.shape[1:] != wanted or array.dtype.kind != "f":
            raise EngineError(f"pixels are {array.dtype}{list(array.shape)}; float32{['n', *wanted]} is needed")
        embeddings = np.empty((len(array), self.dim), np.float32)
        self._image().pixels(np.ascontiguousarray(array, np.float32), self.towers.pixels.patch, embeddings)
        return embeddings

    def encode_ids(self, ids: ArrayLike) -> Floats:
        """Embeddings of texts.

        Args:
            ids: int[n, length] token ids, padded as the model was trained; length 1 to `context`, n may be 0.

        Returns float32[n, dim]. Raises EngineError: another shape, ids outside the vocabulary.
        """
        array = np.asarray(ids)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise EngineError(f"token ids are {array.dtype}{list(array.shape)}; integers [n, length] are needed")
        if array.size and (array.min() < 0 or array.max() >= 2**31):
            raise EngineError("a token id is negative or beyond 2^31")
        embeddings = np.empty((len(array), self.dim), np.float32)
        self._text().ids(np.ascontiguousarray(array, np.int32), embeddings)
        return embeddings


class _Late:
    """A tower that is compiled now, or by the first call that needs it; threads wait for each other there."""

    def __init__(self, make: Callable[[], _native.Tower], *, wait: bool) -> None:
        self._make, self._lock = make, ForkLock()
        self._made = None if wait else make()

    def __call__(self) -> _native.Tower:
        with self._lock:
            self._made = self._made or self._make()
            return self._made


def _scalar(tensors: Tensors, name: str) -> float:
    tensor = tensors.get(name)
    if tensor is None or isinstance(tensor, PackedTensor) or tensor.shape != (1,) or not np.isfinite(tensor[0]):
        raise ModelError(f"{name} must be one finite number, float32[1]")
    return float(tensor[0])


def _scale(tensors: Tensors, name: str) -> float:
    logarithm = _scalar(tensors, name)
    if not -30 < logarithm < 30:
        raise ModelError(f"{name} is {logarithm:g}: exp of it is no scale")
    return math.exp(logarithm)
