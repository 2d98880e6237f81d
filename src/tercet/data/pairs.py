"""What a student of both towers reads: pictures as patches, captions as ids, and which of them belong together.

    sources of pictures with captions -> rows (picture, text, group), as many of each source -> arrays of the loop

A row draws one of its picture's captions. Pictures are preprocessed once, without augmentation, and rows look them up,
so that a picture with several captions is in memory once; so are the teacher's embeddings. Everything follows from
sources, number of rows and seed.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError, StorageError, TercetError
from tercet.program import Model
from tercet.program.patches import patches
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.preprocess import Preprocessor
from tercet.sources import Source
from tercet.sources.cache import cache_dir

__all__ = ["LARGE", "Captioned", "IndexedRows", "PairData", "Reader", "gather"]

Floats = NDArray[np.float16]
log = logging.getLogger(__name__)

LARGE = 1 << 30  # bytes of pictures that are not kept in memory


class Captioned(Protocol):
    """Pictures with captions, such as `tercet.data.pictures.Pictures`; without captions where those are empty."""

    @property
    def name(self) -> str: ...

    @property
    def pixels(self) -> Sequence[NDArray[np.uint8]] | NDArray[np.uint8]:
        """uint8[height, width, 3] by number."""

    @property
    def captions(self) -> Sequence[Sequence[str]]: ...

    @property
    def groups(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Reader:
    """Pictures and texts as both parts of a model read them, by the files that go into its packed folder."""

    model: Model
    preprocessor: Preprocessor
    captions: CaptionTokenizer

    @classmethod
    def open(cls, source: Source) -> Reader:
        """Raises FormatError where the source does not say how pictures and texts are read."""
        captions = CaptionTokenizer.open(source.folder, source.model.text.context, source.tokenizer_settings())
        return cls(source.model, Preprocessor.from_config(source.preprocessor()), captions)

    def pictures(self, pixels: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """float32[n, 3, size, size]."""
        from PIL import Image

        return np.stack([self.preprocessor(Image.fromarray(np.ascontiguousarray(each))) for each in pixels])

    def patches(self, pixels: Sequence[NDArray[np.uint8]]) -> Floats:
        """float16[n, patches, columns]: as near as training needs it, in half the memory."""
        return patches(self.pictures(pixels), self.model.pixels.patch).astype(np.float16)


class IndexedRows:
    """Rows of `base` in another order, some of them several times: what the loop takes for an array."""

    def __init__(self, base: NDArray[Any], index: NDArray[np.int64]) -> None:
        self.base, self.index = base, index
        self.shape = (len(index), *base.shape[1:])
        self.dtype, self.ndim = base.dtype, base.ndim

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        found: NDArray[Any] = self.base[self.index[rows]]
        return found


@dataclass(frozen=True, eq=False)
class PairData:
    """Attributes:
    name: of the sources, for a sentence.
    digest: SHA-256 of all that is read.
    patches: float16[n, patches, columns], each picture once.
    ids: int64[m, length], each text once.
    rows: int64[k, 3]: picture, text, group of each pair; pictures of one group show the same thing.
    more_patches, more_ids: indices of pictures and texts that have no partner; each row of the loop takes one.
    """

    name: str
    digest: str
    patches: Floats
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]
    more_patches: NDArray[np.int64]
    more_ids: NDArray[np.int64]

    def arrays(self, image: NDArray[np.float32] | None, text: NDArray[np.float32] | None) -> dict[str, Any]:
        """What `tercet.train.PairTask` reads; `image` and `text` are the teacher's embeddings, where it is stored."""
        picture, words, groups = (self.rows[:, column] for column in range(3))
        made: dict[str, Any] = {"patches": IndexedRows(self.patches, picture), "ids": self.ids[words], "groups": groups}
        more = {"patches": _repeated(self.more_patches, len(picture)), "ids": _repeated(self.more_ids, len(picture))}
        for name, base, own in (("patches", self.patches, image), ("ids", self.ids, text)):
            side = "image" if name == "patches" else "text"
            if own is not None:
                made[f"{side}_teacher"] = IndexedRows(own, picture if name == "patches" else words)
            if len(more[name]):
                made[f"more_{name}"] = IndexedRows(base, more[name])
            if len(more[name]) and own is not None:
                made[f"more_{side}_teacher"] = IndexedRows(own, more[name])
        return made


def gather(
    sources: Sequence[Captioned],
    reader: Reader,
    rows: int,
    seed: int,
    *,
    captions: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> PairData:
    """Pairs for training or calibration.

    Args:
        sources: with pictures and, all of them or some, captions. What has none is read unpaired.
        rows: pairs; each source with captions gives as many, its pictures again with other captions if need be.
        captions: texts without pictures.
        progress: called with (pictures done, pictures).

    Pictures that cannot be read are left out, and said in the log. Raises TercetError where none is left.
    """
    rng = np.random.default_rng(seed)
    paired = [source for source in sources if len(source) and any(source.captions)]
    if not paired:
        raise TercetError("no picture has a caption; give pictures with captions, such as a CSV of image and caption")
    seen: dict[tuple[int, int], int] = {}
    texts: dict[str, int] = {}
    found: list[tuple[int, int, int]] = []
    groups: dict[tuple[int, int], int] = {}
    for number, source in enumerate(paired):
        share = rows // len(paired) + (number < rows % len(paired))
        for index in _drawn(rng, [i for i, each in enumerate(source.captions) if each], share):
            told = source.captions[index]
            text = told[int(rng.integers(len(told)))]
            group = groups.setdefault((number, int(source.groups[index])), len(groups))
            picture = seen.setdefault((number, index), len(seen))
            found.append((picture, texts.setdefault(text, len(texts)), group))
    places = [(paired[number], index) for number, index in seen]
    lone = [(source, index) for source in sources for index, told in enumerate(source.captions) if not told]
    kept = [lone[int(i)] for i in rng.permutation(len(lone))[:rows]]
    spare = [text for text in dict.fromkeys(captions) if text not in texts]
    spare = [spare[int(i)] for i in rng.permutation(len(spare))[:rows]]
    pictures, unread = _patches([*places, *kept], reader, progress)
    ids = reader.captions([*texts, *spare])
    table = np.array([row for row in found if row[0] not in unread], np.int64)
    if not len(table):
        raise TercetError(f"no picture with a caption could be read; the first: {next(iter(unread.values()))}")
    digest = hashlib.sha256(pictures.data)
    digest.update(ids.tobytes() + table.tobytes())
    return PairData(
        name=", ".join(source.name for source in sources),
        digest=digest.hexdigest(),
        patches=pictures,
        ids=ids,
        rows=table,
        more_patches=np.array([i for i in range(len(places), len(pictures)) if i not in unread], np.int64),
        more_ids=np.arange(len(texts), len(ids)),
    )


def _drawn(rng: np.random.Generator, among: Sequence[int], count: int) -> list[int]:
    """So many of them: all before any comes again."""
    rounds = -(-count // len(among))
    return [among[int(i)] for _ in range(rounds) for i in rng.permutation(len(among))][:count]


def _patches(
    places: Sequence[tuple[Captioned, int]], reader: Reader, progress: Callable[[int, int], None] | None
) -> tuple[Floats, dict[int, str]]:
    """The patches, and why those that could not be read were not, by place."""
    image = reader.model.image
    made = _space((len(places), image.context, image.weights[image.ops[0].weight].shape[1]))
    unread: dict[int, str] = {}
    for at, (source, index) in enumerate(places):
        try:
            made[at] = reader.patches([source.pixels[index]])[0]
        except FormatError as error:
            made[at] = 0
            unread[at] = str(error)
        if progress and (at % 256 == 255 or at + 1 == len(places)):
            progress(at + 1, len(places))
    if unread:
        why = next(iter(unread.values()))
        log.warning("%d of %d pictures cannot be read and are left out; the first: %s", len(unread), len(places), why)
    return made, unread


def _space(shape: tuple[int, ...]) -> Floats:
    """Memory, or for what is large a file without a name in the cache, which is gone when nobody reads it any more.

    Raises StorageError where the disk has no room for it.
    """
    size = 2 * math.prod(shape)
    if size < LARGE:
        return np.empty(shape, np.float16)
    cache_dir().mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=cache_dir()) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a hole that cannot be filled later would end the process
            return np.memmap(file, np.float16, "r+", shape=shape)
    except OSError as error:
        raise StorageError(
            f"{cache_dir()}: no room for {size / 1e9:.1f} GB of prepared pictures ({error.strerror}); fewer steps, "
            "or set TERCET_CACHE to a larger disk"
        ) from None


def _repeated(index: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` of them, from the first again after the last; none of none."""
    return np.resize(index, count) if len(index) else index
