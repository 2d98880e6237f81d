"""What is in a model file: formats, true bits a weight, shares of ternary weights and of zeros.

True bits: 8 * (codes + padding + scales + shifts) / logical weights. MB are 10^6 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tercet.artifact import Artifact, is_artifact, read_header
from tercet.errors import FormatError
from tercet.packing import PackedTensor, unpack
from tercet.sources.gguf import reader
from tercet.tensor import TernaryTensor

__all__ = ["Contents", "TensorContents", "contents"]


@dataclass(frozen=True)
class TensorContents:
    """One tensor; `zero_share` of ternary ones only, `error` (relative, Frobenius) where it was stored."""

    name: str
    shape: tuple[int, ...]
    format: str
    group_size: int | None
    bits: float
    bytes: int
    zero_share: float | None
    error: float | None

    @property
    def weights(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Contents:
    """All tensors and their totals; shares are 0..1, and None where there is no ternary weight.

    `transforms`: what its linears compute beside W x + b (`tercet.families.transforms`); empty for most.
    """

    tensors: tuple[TensorContents, ...]
    bits_per_ternary_weight: float | None
    bits_per_weight: float
    ternary_share: float
    zero_share: float | None
    file_mb: float
    transforms: dict[str, Any]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def contents(path: str | Path) -> Contents:
    """Reads a packed folder, a .safetensors file or a .gguf file.

    Raises FormatError where it is none of these, or damaged.
    """
    place = Path(path)
    if place.name == "model.safetensors" and is_artifact(place.parent):
        place = place.parent
    if is_artifact(place):
        return _of_folder(place)
    if place.is_file() and place.suffix == ".safetensors":
        return _totals(_of_safetensors(place), place.stat().st_size)
    if place.is_file() and place.suffix == ".gguf":
        return _totals(_of_gguf(place), place.stat().st_size)
    raise FormatError(f"{path}: not a packed folder, a .safetensors or a .gguf file; name one of these")


def _of_folder(folder: Path) -> Contents:
    artifact = Artifact.open(folder)
    errors = artifact.config.get("calibration", {}).get("error", {})
    tensors = []
    for name, tensor in artifact.tensors.items():
        if isinstance(tensor, PackedTensor):
            zero = _zero_share(tensor)
            group = None if tensor.scale is None else tensor.group_size
            line = (name, tensor.shape, tensor.format, group, tensor.bits_per_weight, tensor.nbytes, zero)
        else:
            bits = 8.0 * tensor.dtype.itemsize
            line = (name, tensor.shape, str(tensor.dtype), None, bits, tensor.nbytes, None)
        tensors.append(TensorContents(*line, error=errors.get(name)))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return _totals(tensors, size, artifact.config["model"].get("tercet"))


def _of_safetensors(file: Path) -> list[TensorContents]:
    tensors = []
    for name, entry in read_header(file).items():
        weights = max(math.prod(entry.shape), 1)
        nbytes = entry.end - entry.start
        tensors.append(TensorContents(name, entry.shape, entry.dtype, None, 8 * nbytes / weights, nbytes, None, None))
    return tensors


def _of_gguf(file: Path) -> list[TensorContents]:
    tensors = []
    with reader.GGUFFile(file) as gguf:
        for name, info in gguf.tensors.items():
            bits = 8 * info.nbytes / max(math.prod(info.shape), 1)
            format = reader.BLOCKS[info.kind][0]
            tensors.append(TensorContents(name, info.shape, format, None, bits, info.nbytes, None, None))
    return tensors


def _zero_share(tensor: PackedTensor) -> float | None:
    loose = unpack(tensor)
    return float((loose.codes == 0).mean()) if isinstance(loose, TernaryTensor) else None


def _totals(tensors: list[TensorContents], file_bytes: int, transforms: Any = None) -> Contents:
    ternary = [tensor for tensor in tensors if tensor.zero_share is not None]
    weights = sum(tensor.weights for tensor in tensors)
    ternary_weights = sum(tensor.weights for tensor in ternary)
    zeros = sum(tensor.weights * (tensor.zero_share or 0.0) for tensor in ternary)
    return Contents(
        tensors=tuple(tensors),
        bits_per_ternary_weight=8 * sum(t.bytes for t in ternary) / ternary_weights if ternary_weights else None,
        bits_per_weight=8 * sum(t.bytes for t in tensors) / max(weights, 1),
        ternary_share=ternary_weights / max(weights, 1),
        zero_share=zeros / ternary_weights if ternary_weights else None,
        file_mb=file_bytes / 1e6,
        transforms=dict(transforms) if isinstance(transforms, Mapping) else {},
    )
