"""config.json against the tensors: what the file says of itself must be whole, consistent and within bounds.

After `check` every tensor's place, format and shape is known to be right, so the reader only makes views.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tercet.artifact.header import ALIGN, NAMES, Entry
from tercet.errors import FormatError
from tercet.packing import check_geometry, stored_shapes

__all__ = ["Matrix", "check"]

VERSION = 1
SECTIONS = ("model", "generation", "tensors", "crc32c", "source", "calibration")
# Sizes that readers of `model` multiply or loop over; null stands for the family's default.
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
         "max_position_embeddings", "image_size", "patch_size", "projection_dim", "projection_size")  # fmt: skip
# How the model's makers sample from it, all optional: the fields of tercet.runtime.Sampling and their bounds.
SAMPLING = {
    "temperature": (0, 100),
    "top_k": (0, 2**31 - 1),
    "top_p": (1e-9, 1),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 100),
}
EMBEDDINGS = ("embed_tokens.weight", "token_embedding.weight")
SUFFIXES = {"codes": "", "scale": "_scale", "shift": "_shift"}


class Matrix(NamedTuple):
    """One line of `tensors`: what a stored matrix is."""

    format: str
    shape: tuple[int, int]
    group_size: int
    shift: bool


def check(config: dict[str, Any], entries: dict[str, Entry], where: str) -> dict[str, Matrix]:
    """The matrices by name; all other entries are vectors F32[n]. Raises FormatError."""
    if type(config.get("version")) is not int or config["version"] != VERSION:
        raise FormatError(f"{where}: version {str(config.get('version'))[:20]}, this Tercet reads {VERSION}; update it")
    for section in SECTIONS:
        if not isinstance(config.get(section), dict):
            raise FormatError(f"{where}: {section} must be an object")
    matrices = {name: _matrix(value, f"{where}: tensor {name[:200]!r}") for name, value in config["tensors"].items()}
    vectors = _check_matrices(matrices, entries, where)
    for name, entry in vectors.items():
        if entry.dtype != "F32" or len(entry.shape) != 1 or not entry.shape[0] or entry.start % 4:
            raise FormatError(
                f"{where}: tensor {name[:200]!r} is in the file, but is neither a vector nor described here"
            )
    _check_checksums(config["crc32c"], entries, where)
    _check_model(config["model"], matrices, len(entries), where)
    _check_generation(config["generation"], _vocabulary(config["model"], matrices), where)
    _check_errors(config["calibration"].get("error", {}), where)
    return matrices


def _matrix(value: Any, where: str) -> Matrix:
    if not isinstance(value, dict) or value.keys() != set(Matrix._fields):
        raise FormatError(f"{where}: must have format, shape, group_size, shift and nothing else")
    shape, group = value["shape"], value["group_size"]
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(size) is int for size in shape):
        raise FormatError(f"{where}: shape must be [out, in]")
    if not isinstance(value["format"], str) or type(group) is not int or type(value["shift"]) is not bool:
        raise FormatError(f"{where}: format must be a string, group_size an integer, shift true or false")
    matrix = Matrix(value["format"], (shape[0], shape[1]), group, value["shift"])
    try:
        check_geometry(*matrix)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from None
    return matrix


def _check_matrices(matrices: dict[str, Matrix], entries: dict[str, Entry], where: str) -> dict[str, Entry]:
    rest = dict(entries)
    for name, matrix in matrices.items():
        for part, (dtype, shape) in stored_shapes(*matrix).items():
            key = name + SUFFIXES[part]
            entry = rest.pop(key, None)
            if entry is None:
                raise FormatError(f"{where}: tensor {key[:200]!r} is described but not in the file, or twice")
            if entry.dtype != NAMES[dtype.name] or entry.shape != shape:
                found = f"{entry.dtype}{str(list(entry.shape))[:200]}"
                raise FormatError(f"{where}: tensor {key[:200]!r} is {found}, not {NAMES[dtype.name]}{list(shape)}")
            # The writer starts each tensor at a multiple of what divides its size, and kernels count on it.
            size = entry.end - entry.start
            if entry.start % min(ALIGN, size & -size):
                raise FormatError(f"{where}: tensor {key[:200]!r} is not aligned; write the file with Tercet")
    return rest


def _check_checksums(checksums: dict[str, Any], entries: dict[str, Entry], where: str) -> None:
    if checksums.keys() != entries.keys():
        raise FormatError(f"{where}: crc32c must have a checksum for each tensor of the file, and no other")
    if not all(type(value) is int and 0 <= value < 2**32 for value in checksums.values()):
        raise FormatError(f"{where}: a crc32c is not a 32-bit number")


def _check_model(model: dict[str, Any], matrices: dict[str, Matrix], tensors: int, where: str) -> None:
    text, vision = model.get("text_config", model), model.get("vision_config", {})
    for part, called in ((model, "model"), (text, "model.text_config"), (vision, "model.vision_config")):
        if not isinstance(part, dict):
            raise FormatError(f"{where}: {called} must be an object")
        for key in SIZES:
            value = part.get(key)
            if value is not None and (type(value) is not int or not 0 < value < 2**31):
                raise FormatError(f"{where}: {called}.{key} is {str(value)[:40]!r}, not a positive 32-bit integer")
        if (part.get("num_hidden_layers") or 0) > tensors:
            raise FormatError(f"{where}: {part['num_hidden_layers']} layers, but only {tensors} tensors")
    words = text.get("vocab_size")
    for name, matrix in matrices.items():
        if words is not None and name.endswith((*EMBEDDINGS, "lm_head.weight")) and matrix.shape[0] != words:
            raise FormatError(f"{where}: {name[:200]!r} has {matrix.shape[0]} rows for a vocabulary of {words}")


def _vocabulary(model: dict[str, Any], matrices: dict[str, Matrix]) -> int:
    """Token ids the model knows: the embedding's rows; where there is none, what the config says."""
    rows = [matrix.shape[0] for name, matrix in matrices.items() if name.endswith(EMBEDDINGS)]
    stated = model.get("text_config", model).get("vocab_size")
    return rows[0] if rows else stated or 2**31


def _check_generation(generation: dict[str, Any], vocabulary: int, where: str) -> None:
    ids = generation.get("eos_token_id", [])
    if not isinstance(ids, list) or not all(type(token) is int and 0 <= token < 2**31 for token in ids):
        raise FormatError(f"{where}: generation.eos_token_id must be a list of token ids")
    for name, (low, high) in SAMPLING.items():
        value = generation.get(name, high)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise FormatError(f"{where}: generation.{name} is {str(value)[:40]}; it must be {low:g} to {high:g}")
    if type(generation.get("top_k", 0)) is not int:
        raise FormatError(f"{where}: generation.top_k must be a whole number")
    if ids and max(ids) >= vocabulary:
        raise FormatError(f"{where}: generation.eos_token_id {max(ids)} is outside the vocabulary of {vocabulary}")


def _check_errors(errors: Any, where: str) -> None:
    numbers = errors.values() if isinstance(errors, dict) else [None]
    if not all(isinstance(error, int | float) and not isinstance(error, bool) for error in numbers):
        raise FormatError(f"{where}: calibration.error must give a number for each matrix that was calibrated")
