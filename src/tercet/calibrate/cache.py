"""Finished blocks on disk, so that a run that was stopped goes on where it was.

A block's file is named by the hash of all it depends on: recipe, plan, windows, and the weights of every block up to
it. Nothing has to be invalidated, and what cannot be read is calibrated again.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet import __version__
from tercet.errors import QuantizeError
from tercet.fsio import atomic_file
from tercet.recipe import Calibrate, Planned
from tercet.tensor import TernaryTensor

__all__ = ["BlockCache"]


class BlockCache:
    """Blocks of one calibration, met in order: `enter` each, then `load` it or `save` it.

    Args:
        folder: where the files are; made when the first one is saved.
    """

    def __init__(
        self, folder: Path, plan: Mapping[str, Planned], windows: NDArray[np.int64], settings: Calibrate
    ) -> None:
        self.folder = folder
        # Where the text came from does not matter, its tokens do.
        settings = settings.model_copy(update={"text": "default"})
        self.chain = hashlib.sha256(f"{__version__} {settings!r} {dict(plan)!r} {windows.shape}".encode())
        self.chain.update(np.ascontiguousarray(windows).tobytes())

    def enter(self, weights: Mapping[str, NDArray[np.float32]]) -> None:
        """Come to the next block, which reads these float32 weights."""
        for name, weight in weights.items():
            self.chain.update(f"{name} {weight.shape}".encode())
            self.chain.update(np.ascontiguousarray(weight).data)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.chain.hexdigest()[:32]}.npz"

    def load(self) -> dict[str, TernaryTensor] | None:
        """The block's tensors, or None where they are not there or cannot be read."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                names = [key.removesuffix(":codes") for key in file if key.endswith(":codes")]
                return {
                    name: TernaryTensor(
                        file[f"{name}:codes"],
                        file[f"{name}:scale"],
                        file.get(f"{name}:shift"),
                    )
                    for name in names
                }
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, QuantizeError):
            return None

    def save(self, solved: Mapping[str, TernaryTensor]) -> None:
        """Keep the block's tensors. Raises StorageError where the disk refuses them."""
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, tensor in solved.items():
            arrays[f"{name}:codes"] = tensor.codes
            arrays[f"{name}:scale"] = tensor.scale
            if tensor.shift is not None:
                arrays[f"{name}:shift"] = tensor.shift
        data = io.BytesIO()
        np.savez_compressed(data, allow_pickle=False, **arrays)
        atomic_file(self.path, data.getvalue())
