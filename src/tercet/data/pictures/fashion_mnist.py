"""Fashion-MNIST: 70,000 grey photographs, 28 by 28, of ten kinds of clothes (Xiao et al., 2017; Zalando, MIT).

The four files come from Debian's package dataset-fashion-mnist: from where it is installed, else out of the package.
Their SHA-256 are pinned. The last 5,000 of the 60,000 training pictures are the validation split; the test split is
the original one. The pictures are the originals (a black ground), without change.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet.data.packages import debian_members
from tercet.data.pictures.base import Pictures, Split
from tercet.errors import FormatError, ModelError
from tercet.sources import cache

__all__ = ["CLASSES", "TEMPLATES", "pictures"]

PACKAGE = "dataset-fashion-mnist"
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
FILES = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
COUNTS = {"train": 60_000, "t10k": 10_000}
VALIDATION = 5_000
SIDE = 28
CLASSES = (
    "t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
TEMPLATES = (
    "a photo of a {}.",
    "a type of {}.",
    "a photo of the {}.",
    "a picture of a {}.",
    "a grey photo of a {}.",
    "a product photo of a {}.",
    "{}",
)


def pictures(split: Split) -> Pictures:
    """55,000, 5,000 and 10,000 pictures (train, validation, test), uint8[n, 28, 28, 3]; groups are the classes.

    Raises ModelError (the package is not to be had, or there is no such split), FormatError (it is not the expected).
    """
    if split not in ("train", "validation", "test"):
        raise ModelError(f"Fashion-MNIST has no split {split!r}; there are train, validation and test")
    pixels, labels = _read("t10k" if split == "test" else "train")
    if split != "test":
        kept = slice(None, -VALIDATION) if split == "train" else slice(-VALIDATION, None)
        pixels, labels = pixels[kept], labels[kept]
    told = [tuple(template.format(name) for template in TEMPLATES) for name in CLASSES]
    captions = tuple(told[label] for label in labels)
    rgb = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    return Pictures("fashion-mnist", rgb, captions, labels.astype(np.int64), CLASSES, TEMPLATES)


def _read(part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grey pictures uint8[n, 28, 28] and classes uint8[n]."""
    folder = INSTALLED
    if not all((folder / name).is_file() for name in FILES):
        folder = cache.entry("pictures", "fashion-mnist-1", _make)
    count = COUNTS[part]
    pixels = _idx(folder / f"{part}-images-idx3-ubyte.gz", (count, SIDE, SIDE))
    return pixels, _idx(folder / f"{part}-labels-idx1-ubyte.gz", (count,))


def _idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The array in an IDX file: two zeros, 8 for uint8, the rank, big-endian sizes, data. Checked by digest first."""
    packed = path.read_bytes()
    if hashlib.sha256(packed).hexdigest() != FILES[path.name]:
        raise FormatError(f"{path}: not the file that was expected (SHA-256 differs); remove it and run again")
    data = gzip.decompress(packed)
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    if not data.startswith(header) or len(data) != len(header) + int(np.prod(shape)):
        raise FormatError(f"{path}: not an IDX file of {shape} bytes; remove it and run again")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


def _make(folder: Path) -> None:
    prefix = f"{INSTALLED}/".lstrip("/")
    found = set()
    for path, content in debian_members(PACKAGE, "31 MB", lambda path: path.removeprefix(prefix) in FILES):
        name = path.removeprefix(prefix)
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise FormatError(f"{name} in {PACKAGE}: not the file that was expected (SHA-256 differs); get it again")
        (folder / name).write_bytes(content)
        found.add(name)
    if missing := sorted(FILES.keys() - found):
        raise FormatError(f"{PACKAGE}: {missing[0]} is not in the package; get it again")
