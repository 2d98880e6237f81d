"""Finished blocks on disk, so that a run that was stopped goes on where it was.

A block's file is named by the hash of all it depends on: recipe, plan, windows, and the weights of every block up to
it. Nothing has to be invalidated, and what cannot be read is calibrated again. The file also says how much CPU time the
block took, so that a model made from the cache is not counted as free.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import __version__
from tercet.calibrate.keep import Quantized
from tercet.errors import FormatError, QuantizeError
from tercet.fsio import atomic_file
from tercet.packing import PackedTensor, pack, unpack
from tercet.program import Op
from tercet.recipe import Calibrate, Planned
from tercet.tensor import TernaryTensor

__all__ = ["BlockCache"]

METHOD = 2  # counts what changed in calibration since the version: blocks that were solved otherwise are not taken


class BlockCache:
    """Blocks of one calibration, met in order: `enter` each, then `load` it or `save` it.

    Args:
        folder: where the files are; made when the first one is saved.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Planned], windows: NDArray[Any], settings: Calibrate) -> None:
        self.folder = folder
        # Where the text came from does not matter, its tokens do.
        settings = settings.model_copy(update={"text": "default"})
        self.chain = hashlib.sha256(f"{__version__} {METHOD} {settings!r} {dict(plan)!r} {windows.shape}".encode())
        self.chain.update(np.ascontiguousarray(windows).tobytes())

    def enter(
        self, ops: Sequence[Op], weights: Mapping[str, NDArray[np.float32]], tables: Sequence[NDArray[np.int8]] = ()
    ) -> None:
        """Come to the next block: its operations, the float32 weights they read, and codes that were fitted before."""
        # A model's config comes with its weights; whether results are clipped is chosen.
        if clips := [op for op in ops if op.kind == "clip"]:
            self.chain.update(repr(clips).encode())
        for codes in tables:
            self.chain.update(np.ascontiguousarray(codes).data)
        for name, weight in weights.items():
            self.chain.update(f"{name} {weight.shape}".encode())
            self.chain.update(np.ascontiguousarray(weight).data)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.chain.hexdigest()[:32]}.npz"

    def load(self) -> tuple[dict[str, Quantized], float] | None:
        """The block's tensors and the CPU-seconds it took; None where they are not there or cannot be read."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                tensors = {name: _tensor(file, name) for name in json.loads(file["names"].tobytes())}
                return tensors, float(file["cpu_seconds"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, FormatError, QuantizeError):
            return None

    def save(self, solved: Mapping[str, Quantized], cpu_seconds: float) -> None:
        """Keep the block's ternary tensors and norms. Raises StorageError where the disk refuses them."""
        arrays: dict[str, NDArray[Any]] = {"names": np.frombuffer(json.dumps(list(solved)).encode(), np.uint8)}
        arrays["cpu_seconds"] = np.array(cpu_seconds)
        for name, tensor in solved.items():
            if isinstance(tensor, np.ndarray):
                arrays[f"{name}:values"] = tensor
                continue
            packed = pack(tensor, "t2")  # a quarter of the codes; binary ones fit too
            arrays[f"{name}:sizes"] = np.array([*packed.shape, packed.group_size])
            parts = (packed.codes, packed.scale, packed.shift)
            arrays |= {f"{name}:{index}": part for index, part in enumerate(parts) if part is not None}
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **arrays)
        atomic_file(self.path, data.getvalue())


def _tensor(file: Mapping[str, NDArray[Any]], name: str) -> Quantized:
    if f"{name}:values" in file:
        values: NDArray[np.float32] = file[f"{name}:values"]
        return values
    rows, cols, group_size = map(int, file[f"{name}:sizes"])
    shift = file.get(f"{name}:2")
    tensor = unpack(PackedTensor("t2", (rows, cols), group_size, file[f"{name}:0"], file[f"{name}:1"], shift))
    assert isinstance(tensor, TernaryTensor)
    return tensor
