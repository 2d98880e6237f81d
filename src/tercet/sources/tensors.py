"""The float tensors of safetensors files, read without torch.

Every header is checked by our own parser (`tercet.artifact`) when the mapping is made, so before transformers opens the
files: it reports damage in many different ways, and some of them are not exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import checksum
from tercet.artifact.header import Entry, read_header
from tercet.errors import FormatError

__all__ = ["Tensors"]

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Tensors(Mapping[str, NDArray[np.float32]]):
    """Tensors of one or more safetensors files by name; each is read, as float32, when asked for.

    F32 tensors are views of the mapped file (read-only); the others are converted copies. Values are not checked.
    Raises FormatError: a damaged header, a name in two files, a dtype that is not float, a wrong checksum.
    """

    def __init__(self, files: list[Path], checksums: Mapping[str, int] | None = None) -> None:
        """
        Args:
            checksums: CRC32C of tensors' bytes by name, compared whenever one is read; absent for those of others.
        """
        self._checksums = checksums or {}
        self._where: dict[str, tuple[Path, Entry]] = {}
        for path in files:
            for name, entry in read_header(path).items():
                if name in self._where:
                    raise FormatError(f"{path}: tensor {name[:80]!r} is in {self._where[name][0].name} as well")
                self._where[name] = (path, entry)

    def verify(self) -> None:
        """Reads every tensor that has a checksum. Raises FormatError where one is wrong."""
        for name in self._checksums:
            self[name]

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        path, entry = self._where[name]
        if entry.dtype not in DTYPES:
            raise FormatError(f"{path}: tensor {name[:80]!r} has dtype {entry.dtype}; the weights must be float")
        dtype = np.dtype(DTYPES[entry.dtype])
        if entry.start == entry.end:
            return np.zeros(entry.shape, np.float32)
        raw = np.memmap(path, dtype, "r", entry.start, ((entry.end - entry.start) // dtype.itemsize,))
        if name in self._checksums and checksum(np.asarray(raw)) != self._checksums[name]:
            raise FormatError(f"{path}: tensor {name[:80]!r} is damaged; delete the folder {path.parent} and run again")
        values = np.asarray(raw).reshape(entry.shape)
        if entry.dtype == "BF16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.astype(np.float32, copy=False)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(entry.shape) for name, (_, entry) in self._where.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)
