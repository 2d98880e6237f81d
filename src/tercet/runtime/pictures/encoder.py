"""The encoder: a packed model of pictures and texts, opened in milliseconds, from pixels or ids to embeddings.

    folder -> Artifact (mmap) -> families.model(config), narrowed -> a native plan for each over the mapped weights

Weights are read as the engine reads them (`tercet.runtime.native_program`). An embedding is the same, to the bit,
whatever the batch, the threads and the instruction set. It is not normalised: what a picture and a text have in common
is

    exp(scale) * <i/|i|, t/|t|> + bias
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import families, kernels
from tercet.artifact import Artifact
from tercet.errors import ModelError
from tercet.families import narrowed
from tercet.packing import PackedTensor
from tercet.program import Model
from tercet.runtime.native_program import Tensors, refuse_unread
from tercet.runtime.pictures.tower import CHUNK, Activations, Options, Tower

__all__ = ["Encoder"]

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
        activations: Activations = "int8",
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
        self.artifact: Artifact | None = None
        self.towers = towers
        self.threads = len(os.sched_getaffinity(0)) if threads is None else threads
        options = Options(self.threads, isa, activations, chunk)
        self._image = Tower(towers.image, tensors, options, converted=self._release)
        self._text = Tower(towers.text, tensors, options, converted=self._release)
        self.isa: str = isa or kernels.default_backend()
        self.dim = self._image.width
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
        activations: Activations = "int8",
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
        """Embeddings float32[n, dim] of pictures; else as `Tower.encode_pixels`."""
        return self._image.encode_pixels(pixels, self.towers.pixels)

    def encode_ids(self, ids: ArrayLike) -> Floats:
        """Embeddings float32[n, dim] of texts; else as `Tower.encode_ids`."""
        return self._text.encode_ids(ids)

    def _release(self) -> None:
        if self.artifact is not None:
            self.artifact.release()


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
