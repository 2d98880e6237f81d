"""One part of a model that reads whole pictures or texts, compiled: from pixels or ids to embeddings or rows.

It is the same result, to the bit, whatever the batch, the threads and the instruction set. Big batches are computed a
chunk at a time, so that activations stay small. A part with matrices that no kernel reads as they are stored (t5) is
made when it is first used: whoever embeds pictures has no room for texts to spare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet import _native
from tercet.errors import EngineError
from tercet.program import Picture, Program
from tercet.runtime.locks import ForkLock
from tercet.runtime.native_program import Tensors, converts, native_program

__all__ = ["CHUNK", "Activations", "Options", "Tower"]

CHUNK = 256  # rows (patches or tokens) computed at once

Activations = Literal["int8", "float32"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Options:
    """How towers run; as `Encoder` says. Raises EngineError where one is out of range."""

    threads: int
    isa: str | None
    activations: Activations
    chunk: int

    def __post_init__(self) -> None:
        if self.activations not in ("int8", "float32"):
            raise EngineError(f"activations {self.activations!r}; use int8 or float32")
        if self.threads < 1 or self.chunk < 1:
            raise EngineError(f"threads {self.threads}, chunk {self.chunk}; both are 1 at least")


class Tower:
    """Safe from several threads; calls take turns.

    Attributes:
        program: what it runs.
        width: columns of its result.
    """

    def __init__(
        self, program: Program, tensors: Tensors, options: Options, *, converted: Callable[[], None] = lambda: None
    ) -> None:
        """Compile `program` over `tensors`, which are read in place and kept alive.

        Args:
            converted: called when matrices have been put into memory of their own.

        Raises EngineError: an unknown instruction set; ModelError: a missing or misshapen weight.
        """
        self.program = program
        self.width = program.widths[program.gives]
        self._tensors, self._options, self._converted = tensors, options, converted
        self._lock = ForkLock()
        self._made = None if converts(program, tensors, options.isa) else self._compile()

    def encode_pixels(self, pixels: ArrayLike, picture: Picture) -> Floats:
        """Embeddings float32[n, width] or rows float32[n, rows, width] of pictures.

        Args:
            pixels: float32[n, 3, size, size], normalised as the model wants them; n may be 0.

        Raises EngineError: another shape, values that are not finite.
        """
        array = np.asarray(pixels)
        wanted = (3, picture.size, picture.size)
        if array.ndim != 4 or array.shape[1:] != wanted or array.dtype.kind != "f":
            raise EngineError(f"pixels are {array.dtype}{list(array.shape)}; float32{['n', *wanted]} is needed")
        tower = self._compiled()
        result = self._result(len(array), tower.rows(self.program.context))
        tower.pixels(np.ascontiguousarray(array, np.float32), picture.patch, result.reshape(-1, self.width))
        return result

    def encode_ids(self, ids: ArrayLike) -> Floats:
        """Embeddings float32[n, width] or rows float32[n, rows, width] of texts.

        Args:
            ids: int[n, length] token ids, padded as the model was trained; length 1 to its context, n may be 0.

        Raises EngineError: another shape, ids outside the vocabulary.
        """
        array = np.asarray(ids)
        if array.ndim != 2 or array.dtype.kind not in "iu":
            raise EngineError(f"token ids are {array.dtype}{list(array.shape)}; integers [n, length] are needed")
        if array.size and (array.min() < 0 or array.max() >= 2**31):
            raise EngineError("a token id is negative or beyond 2^31")
        tower = self._compiled()
        result = self._result(len(array), tower.rows(array.shape[1]))
        tower.ids(np.ascontiguousarray(array, np.int32), result.reshape(-1, self.width))
        return result

    def _result(self, n: int, rows: int) -> Floats:
        return np.empty((n, rows, self.width) if self.program.gives == "rows" else (n, self.width), np.float32)

    def _compiled(self) -> _native.Tower:
        with self._lock:  # threads wait for each other where it is made now
            if self._made is None:
                self._made = self._compile()
                self._converted()
            return self._made

    def _compile(self) -> _native.Tower:
        options = self._options
        return _native.Tower(
            native_program(self.program, self._tensors, options.isa),
            isa=options.isa or "",
            threads=options.threads,
            chunk=options.chunk,
            quantize=options.activations == "int8",
            context=self.program.context,
        )
