"""Writes a model folder: all of it or nothing, and nothing that the reader would refuse.

The weights stream through SHA-256 on their way to disk, so the model card can carry it; the folder is opened once more,
with all cheap checks, before it takes its place.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.artifact.config import SUFFIXES, VERSION
from tercet.artifact.folder import ModelFolder
from tercet.artifact.header import lay_out
from tercet.artifact.reader import CONFIG, WEIGHTS, Artifact, checksum
from tercet.artifact.sums import SUMS, written
from tercet.errors import FormatError
from tercet.packing import PackedTensor, pack

__all__ = ["is_artifact", "save"]

CARD, RECIPE = "README.md", "recipe.json"

Tensors = Mapping[str, PackedTensor | NDArray[np.float32]]


def save(
    folder: str | Path,
    *,
    model: dict[str, Any],
    tensors: Tensors,
    tokenizer_files: Mapping[str, bytes],
    recipe: dict[str, Any],
    card: str | Callable[[dict[str, Any]], str],
    generation: dict[str, Any],
    source: dict[str, Any],
    calibration: dict[str, Any],
) -> None:
    """Writes a model folder in one step; an existing Tercet folder is replaced, any other that is not empty is refused.

    Args:
        model: the transformers config.
        tensors: by full name; plain arrays are float32: vectors, and matrices to keep (stored as f32).
        tokenizer_files: contents by plain file name, such as tokenizer.json.
        card: the model card, or what makes it of {"sha256", "file_bytes", "config"}; a missing SHA-256 is added.
        generation: eos_token_id: one, several or none.
        source, calibration: kept as given: where it came from, how it was made.

    Raises StorageError where it cannot be written, FormatError where something cannot be stored; `folder` stays as it
    was.
    """
    matrices, arrays = _collect(tensors)
    config = {
        "format": "tercet",
        "version": VERSION,
        "model": model,
        "generation": {**generation, "eos_token_id": _ids(generation.get("eos_token_id"))},
        "tensors": {name: _describe(matrix) for name, matrix in matrices.items()},
        "crc32c": {name: checksum(array) for name, array in arrays.items()},
        "source": source,
        "calibration": calibration,
    }
    files = {CONFIG: _json(config, CONFIG), RECIPE: _json(recipe, RECIPE), **_named(tokenizer_files)}
    with fsio.atomic_folder(folder, replaces=is_artifact) as temporary:
        facts = {**_write_weights(temporary / WEIGHTS, arrays), "config": config}
        text = card(facts) if callable(card) else card
        if facts["sha256"] not in text:
            text = f"{text.rstrip()}\n\nSHA-256 of {WEIGHTS}: `{facts['sha256']}`\n"
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        files |= {CARD: text.encode(), SUMS: written({**digests, WEIGHTS: facts["sha256"]})}
        for name, content in files.items():
            fsio.write_file(temporary / name, content)
        Artifact.open(temporary)


def is_artifact(folder: Path) -> bool:
    """Whether a folder is a Tercet model, as far as its config.json says."""
    try:
        return bool(ModelFolder(folder).json(CONFIG).get("format") == "tercet")
    except FormatError:
        return False


def _collect(tensors: Tensors) -> tuple[dict[str, PackedTensor], dict[str, NDArray[Any]]]:
    """Matrices by name, and the arrays of the file by key."""
    matrices: dict[str, PackedTensor] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, PackedTensor):
            matrices[name] = tensor
        elif tensor.dtype == np.float32 and tensor.ndim == 2:
            matrices[name] = pack(tensor, "f32")
        elif tensor.dtype == np.float32 and tensor.ndim == 1:
            arrays[name] = np.ascontiguousarray(tensor)
        else:
            raise FormatError(
                f"cannot store {name}: {tensor.dtype}{list(tensor.shape)}; use a float32 vector or matrix"
            )
    for name, matrix in matrices.items():
        for part, suffix in SUFFIXES.items():
            array = getattr(matrix, part)
            if array is not None and name + suffix in arrays:
                raise FormatError(f"cannot store {name}: another tensor is called {name + suffix}")
            if array is not None:
                arrays[name + suffix] = array
    return matrices, arrays


def _describe(matrix: PackedTensor) -> dict[str, Any]:
    shift = matrix.shift is not None
    return {"format": matrix.format, "shape": list(matrix.shape), "group_size": matrix.group_size, "shift": shift}


def _write_weights(path: Path, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    header, order = lay_out(arrays)
    digest = hashlib.sha256()

    def pieces() -> Iterator[Any]:
        stored: Iterator[Any] = (arrays[name].reshape(-1).view(np.uint8) for name in order)
        for piece in itertools.chain([header], stored):
            digest.update(piece)
            yield piece

    fsio.write_file(path, pieces())
    return {"sha256": digest.hexdigest(), "file_bytes": path.stat().st_size}


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _json(value: Any, what: str) -> bytes:
    try:
        return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"cannot write {what}: {error}") from None


def _named(files: Mapping[str, bytes]) -> dict[str, bytes]:
    for name in files:
        if name in (CONFIG, RECIPE, CARD, WEIGHTS, SUMS) or Path(name).name != name or name.startswith("."):
            raise FormatError(f"cannot write a tokenizer file called {name[:80]!r}")
    return dict(files)
