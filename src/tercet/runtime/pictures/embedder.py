"""A model of two towers with all it needs to be used: encoder, picture preprocessing, tokenizer.

    picture -> Preprocessor -> f32[3, h, w] -> image tower -> f32[dim]
    text    -> CaptionTokenizer       -> i64[context] -> text tower  -> f32[dim]

`PairEncoder` is the little that use and evaluation ask of an encoder, so a float model in torch and the packed one here
go through the same code. Pictures are decoded and resized by threads (Pillow lets go of Python's lock for both) while
the encoder works on the batch before: that keeps all cores busy without copying pixels between processes.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import ModelFolder
from tercet.errors import EngineError, FormatError, ModelError
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.files import PictureSource, UnreadError, opened
from tercet.runtime.pictures.preprocess import Preprocessor

__all__ = ["BATCH", "Embedded", "Embedder", "PairEncoder", "fingerprint", "normalized"]

BATCH = 32
READ_BY_MODEL = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")

Source = TypeVar("Source")


class PairEncoder(Protocol):
    """Two towers into one space."""

    @property
    def dim(self) -> int: ...
    @property
    def image_size(self) -> tuple[int, int]: ...
    @property
    def context(self) -> int: ...
    @property
    def logit_scale(self) -> float: ...
    @property
    def logit_bias(self) -> float: ...
    def encode_pixels(self, pixels: NDArray[np.float32], /) -> NDArray[np.float32]: ...
    def encode_ids(self, ids: NDArray[np.int64], /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Embedded(Generic[Source]):
    """A batch of pictures.

    Attributes:
        sources: those that were read.
        vectors: float32[n, dim] in their order, not normalised.
        refused: those that were not, with one line each.
        unread: of those, the ones that may be read another time: an I/O error, too many open files, no memory left.
    """

    sources: list[Source]
    vectors: NDArray[np.float32]
    refused: list[tuple[Source, str]]
    unread: list[Source]


@dataclass(frozen=True)
class _Refusal:
    reason: str
    lasting: bool = True


@dataclass(frozen=True, eq=False)
class Embedder:
    """Encoder, preprocessing and tokenizer of one model.

    Attributes:
        name: what the user calls it.
        fingerprint: SHA-256 of the model; two models with the same one give the same vectors.
    """

    encoder: PairEncoder
    preprocessor: Preprocessor
    captions: CaptionTokenizer
    name: str
    fingerprint: str

    def __post_init__(self) -> None:
        if self.preprocessor.crop != tuple(self.encoder.image_size):
            raise ModelError(
                f"{self.name}: pictures are prepared as {self.preprocessor.crop} pixels, but the image tower reads"
                f" {tuple(self.encoder.image_size)}; correct preprocessor_config.json"
            )

    @classmethod
    def open(cls, folder: str | Path, *, threads: int | None = None) -> Embedder:
        """Opens a packed model of two towers. Raises FormatError, ModelError."""
        from tercet.runtime.pictures.encoder import Encoder

        folder = Path(folder)
        encoder = Encoder.open(folder, threads=threads)
        captions = CaptionTokenizer.open(folder, encoder.context)
        return cls(encoder, Preprocessor.open(folder), captions, str(folder), fingerprint(folder))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32[n, dim], not normalised."""
        made = [
            self.encoder.encode_ids(self.captions(texts[start : start + BATCH]))
            for start in range(0, len(texts), BATCH)
        ]
        return np.concatenate(made) if made else np.zeros((0, self.encoder.dim), np.float32)

    def pictures(
        self,
        sources: Iterable[Source],
        read: Callable[[Source], PictureSource],
        *,
        batch: int = BATCH,
        workers: int | None = None,
    ) -> Iterator[Embedded[Source]]:
        """Embeds pictures in batches, in their order, reading ahead by at most two batches.

        Args:
            read: what `picture_files.opened` takes, of a source; it runs in a thread, and may raise FormatError.
            workers: threads that decode; as many as this process may use CPUs if absent.

        Raises TercetError where Pillow is missing.
        """

        def prepare(source: Source) -> NDArray[np.float32] | _Refusal:
            try:
                with opened(read(source), "picture") as picture:
                    return self.preprocessor(picture)
            except FormatError as error:
                return _Refusal(str(error).removeprefix("picture: "), lasting=not isinstance(error, UnreadError))
            except OSError as error:
                return _Refusal(f"cannot be read: {error.strerror}", lasting=False)
            except MemoryError:
                return _Refusal("not enough memory to prepare it", lasting=False)

        pool = ThreadPoolExecutor(workers or len(os.sched_getaffinity(0)), "tercet-pictures")
        ahead: deque[tuple[Source, Future[NDArray[np.float32] | _Refusal]]] = deque()
        group: list[tuple[Source, NDArray[np.float32] | _Refusal]] = []
        try:
            for source in sources:
                ahead.append((source, pool.submit(prepare, source)))
                if len(ahead) > 2 * batch:
                    first, future = ahead.popleft()
                    group.append((first, future.result()))
                if len(group) == batch:
                    yield self._embedded(group)
                    group = []
            while ahead:
                first, future = ahead.popleft()
                group.append((first, future.result()))
                if len(group) == batch or not ahead:
                    yield self._embedded(group)
                    group = []
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _embedded(self, group: list[tuple[Source, NDArray[np.float32] | _Refusal]]) -> Embedded[Source]:
        good = [(source, made) for source, made in group if not isinstance(made, _Refusal)]
        vectors = np.zeros((0, self.encoder.dim), np.float32)
        if good:
            vectors = self.encoder.encode_pixels(np.stack([pixels for _, pixels in good]))
        bad = [(source, made) for source, made in group if isinstance(made, _Refusal)]
        return Embedded(
            sources=[source for source, _ in good],
            vectors=vectors,
            refused=[(source, made.reason) for source, made in bad],
            unread=[source for source, made in bad if not made.lasting],
        )


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by its length. Raises EngineError where one is zero or not finite."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise EngineError("an embedding is zero or not finite; the model is broken, check it with: tercet verify")
    return np.asarray(vectors / lengths, np.float32)


def fingerprint(folder: Path) -> str:
    """SHA-256 of what a packed folder computes: its settings, which hold the checksum of every tensor."""
    digest, files = hashlib.sha256(), ModelFolder(folder)
    for name in READ_BY_MODEL:
        if files.has(name):
            digest.update(name.encode() + b"\0" + bytes.fromhex(files.sha256(name)))
    return digest.hexdigest()
