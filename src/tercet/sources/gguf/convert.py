"""GGUF -> a folder in transformers' layout: config.json, model.safetensors (float32), tokenizer files.

    parse header -> config -> every tensor named, shaped and accounted for -> tokenizer -> write, one tensor at a time

`plan` does all that can fail on the header; `write` streams the weights, so memory is that of one tensor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.artifact import SUMS, checksum, written
from tercet.errors import FormatError
from tercet.sources.gguf import tokenizer as gguf_tokenizer
from tercet.sources.gguf.config import config, sizes
from tercet.sources.gguf.names import LAYOUTS, Layout
from tercet.sources.gguf.reader import GGUFFile

__all__ = ["CHECKSUMS", "Plan", "plan", "write"]

CHECKSUMS = "crc32c.json"  # of each tensor's bytes: the cache must not hand on what a disk made of them


@dataclass(frozen=True)
class Plan:
    """All of a model but its weights; `tensors` maps transformers' names to (GGUF name, shape)."""

    file: GGUFFile
    layout: Layout
    config: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    texts: dict[str, bytes]

    def weights(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """(name, float32 tensor) as transformers wants them, one after the other."""
        for target, (name, _) in self.tensors.items():
            yield target, self._restored(name, self.file.read(name))

    def _restored(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        heads, leaf = self.config["num_attention_heads"], name.split(".")[-2]
        if self.layout.norm_offset and "norm" in leaf:
            return values - np.float32(self.layout.norm_offset)
        if self.layout.interleaved and leaf in ("attn_q", "attn_k"):
            return _halves(values, heads if leaf == "attn_q" else self.config["num_key_value_heads"])
        return values


def plan(file: GGUFFile) -> Plan:
    """Check that `file` holds one whole supported model. Raises FormatError or ModelError."""
    made = config(file)
    layout = LAYOUTS[file.metadata["general.architecture"]]
    tensors = _tensors(file, layout, made["num_hidden_layers"], sizes(made))
    tokenizer = gguf_tokenizer.build(file.metadata, str(file.path))
    made |= tokenizer.token_ids
    texts = {
        "config.json": _json(made),
        "generation_config.json": _json({**tokenizer.token_ids, "eos_token_id": tokenizer.stop_ids}),
        "tokenizer.json": tokenizer.tokenizer.to_str().encode(),
        "tokenizer_config.json": _json(tokenizer.settings | {"model_max_length": made["max_position_embeddings"]}),
    }
    return Plan(file, layout, made, tensors, texts)


def write(planned: Plan, folder: Path, progress: Callable[[int, int], None]) -> None:
    """Write the model into the existing empty `folder`, with checksums; `progress(done, all)` counts tensors.

    The safetensors header comes first and is known beforehand, so that tensors need not be held together. Raises
    StorageError.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for target, (_, shape) in planned.tensors.items():
        start, end = end, end + 4 * int(np.prod(shape, dtype=np.int64))
        header[target] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = _json(header)
    text += b" " * (-len(text) % 64 + 56)  # 8 + header is a multiple of 64: tensors are aligned when mapped
    checksums = {}

    def pieces() -> Iterator[Any]:
        yield len(text).to_bytes(8, "little") + text
        for done, (target, values) in enumerate(planned.weights(), 1):
            stored = np.ascontiguousarray(values, "<f4")
            checksums[target] = checksum(stored)
            yield stored
            progress(done, len(planned.tensors))

    fsio.write_file(folder / "model.safetensors", pieces())
    texts = {**planned.texts, CHECKSUMS: _json(checksums)}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
    for name, content in {**texts, SUMS: written(digests)}.items():
        fsio.write_file(folder / name, content)


def _tensors(
    file: GGUFFile, layout: Layout, layers: int, sizes: dict[str, int]
) -> dict[str, tuple[str, tuple[int, ...]]]:
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    used = {"rope_freqs.weight"}
    for must, rows in ((True, layout.required(layers)), (False, layout.extra(layers))):
        for name, target, symbols in rows:
            info = file.tensors.get(name)
            if info is None and must:
                raise FormatError(f"{file.path}: tensor {name!r} is missing; the file is incomplete")
            if info is None:
                continue
            expected = tuple(sizes[symbol] for symbol in symbols)
            if info.shape != expected:
                raise FormatError(f"{file.path}: tensor {name!r} has shape {info.shape}, its metadata says {expected}")
            found[target] = (name, expected)
            used.add(name)
    unknown = sorted(set(file.tensors) - used)
    if unknown:
        raise FormatError(
            f"{file.path}: {len(unknown)} tensors no {layout.model_type} model has, such as {unknown[0]!r}; "
            "this variant is not supported"
        )
    return found


def _halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's row order: rotated pairs (2i, 2i+1) of a head become (i, i + head/2), as transformers wants."""
    pairs = values.reshape(heads, -1, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=None if "__metadata__" in value else 2).encode()
