"""A Tercet model folder, opened by mmap: milliseconds, and no more memory than the pages that are read.

`open` checks what costs nothing: both headers, every shape and place, every scale. `verify` reads all bytes: checksums
and codes. The kernels are memory-safe on codes of any value, so an unverified file can give wrong numbers, no more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from tercet.artifact import config as configs
from tercet.artifact.folder import ModelFolder
from tercet.artifact.header import Entry, parse_header
from tercet.artifact.mapped import huge_share, load, map_file, release
from tercet.artifact.sums import SUMS
from tercet.errors import FormatError
from tercet.packing import PackedTensor, invalid_codes, stored_shapes

__all__ = ["CONFIG", "WEIGHTS", "Artifact", "checksum"]

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


class Artifact:
    """An opened model folder.

    Attributes:
        folder: where it is.
        config: config.json, checked (docs/format.md, "File").
        tensors: by full name; a matrix is a PackedTensor, a vector (norm, bias) float32[n]; read-only views.
        file_bytes: size of model.safetensors.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, PackedTensor | NDArray[np.float32]]
    file_bytes: int

    def __init__(
        self, folder: Path, config: dict[str, Any], entries: dict[str, Entry], data: memoryview, *, mapped: bool = True
    ) -> None:
        self.folder, self.config, self.file_bytes = folder, config, len(data)
        self._entries, self._data, self._mapped = entries, data, mapped
        matrices = configs.check(config, entries, str(folder / CONFIG))
        parts = {name + configs.SUFFIXES[part] for name, matrix in matrices.items() for part in stored_shapes(*matrix)}
        self.tensors = {name: self._matrix(name, matrix) for name, matrix in matrices.items()}
        self.tensors |= {name: self._vector(name) for name in entries if name not in parts}

    @classmethod
    def open(cls, folder: str | Path, *, check: bool = False, copy: bool = False) -> Artifact:
        """Opens a folder that `save` wrote; with `check`, also reads and verifies every byte of it.

        Args:
            copy: read the weights into memory of our own, in huge pages where the system has them, instead of mapping
                the file: slower to open and not shared with other processes, faster to run where the file's pages
                are small (`huge_page_share` tells).

        Raises FormatError where it is missing, damaged, hostile or no Tercet model.
        """
        files = ModelFolder(folder)
        config = files.json(CONFIG)
        if config.get("format") != "tercet":
            raise FormatError(f"{folder}: not a Tercet model folder; make one with: tercet quantize")
        descriptor, place = files.open(WEIGHTS), str(files / WEIGHTS)
        try:
            entries = parse_header(descriptor, place)
            data = load(descriptor, place) if copy else map_file(descriptor)
        finally:
            os.close(descriptor)
        artifact = cls(files.path, config, entries, data, mapped=not copy)
        if check:
            artifact.verify()
        return artifact

    def verify(self) -> None:
        """Raises FormatError at the first tensor or file that is not what was written, or whose codes mean nothing.

        Folders of earlier versions have checksums of their tensors alone (`sealed`).
        """
        for key, expected in self.config["crc32c"].items():
            entry = self._entries[key]
            found = checksum(np.frombuffer(self._data, np.uint8, entry.end - entry.start, entry.start))
            if found != expected:
                raise FormatError(
                    f"{self.folder / WEIGHTS}: tensor {key[:200]!r} is damaged: CRC32C {found:08x}, not {expected:08x}"
                )
        for name, tensor in self.tensors.items():
            if isinstance(tensor, PackedTensor) and (count := invalid_codes(tensor)):
                raise FormatError(
                    f"{self.folder / WEIGHTS}: tensor {name[:200]!r} has {count} invalid {tensor.format} codes"
                )
        files = ModelFolder(self.folder)
        if files.has(SUMS) and not {CONFIG, WEIGHTS} <= files.sums.keys():
            raise FormatError(f"{files / SUMS}: damaged, it does not list the model; get the model again")
        files.verify()

    @property
    def sealed(self) -> bool:
        """Whether the folder carries checksums of all its files; earlier versions wrote those of the tensors alone."""
        return bool(ModelFolder(self.folder).sums)

    def release(self) -> None:
        """Forget the pages read so far, where the file is mapped: after matrices were copied out of it."""
        if self._mapped:
            release(self._data)

    def huge_page_share(self) -> float | None:
        """The share of the weights' pages touched so far that are huge ones; None where the system does not tell."""
        return huge_share(self._data)

    def _matrix(self, name: str, matrix: configs.Matrix) -> PackedTensor:
        parts = {}
        for part, (dtype, shape) in stored_shapes(*matrix).items():
            entry = self._entries[name + configs.SUFFIXES[part]]
            count = (entry.end - entry.start) // dtype.itemsize
            parts[part] = np.frombuffer(self._data, dtype, count, entry.start).reshape(shape)
        try:
            return PackedTensor(matrix.format, matrix.shape, matrix.group_size, **parts)
        except FormatError as error:
            raise FormatError(f"{self.folder / WEIGHTS}: tensor {name[:200]!r}: {error}") from None

    def _vector(self, name: str) -> NDArray[np.float32]:
        entry = self._entries[name]
        vector = np.frombuffer(self._data, np.float32, entry.shape[0], entry.start)
        if not np.isfinite(vector).all():
            raise FormatError(f"{self.folder / WEIGHTS}: tensor {name[:200]!r} has values that are not finite")
        return vector


def checksum(data: NDArray[Any]) -> int:
    """CRC32C (Castagnoli) of an array's bytes."""
    return int(google_crc32c.value(data.reshape(-1).view(np.uint8)))
