"""GGUF files for the peers, with the types only ik_llama.cpp knows: version 3 of the format, written by hand.

    magic, version, tensors, pairs | key, type, value ... | name, dims, type, offset ... | padding | data

The vocabulary is left out (`no_vocab`): token ids are all the benchmark needs.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.models import CACHE, EPS, THETA, Shape, gguf_tensors, norm

ALIGN = 32
UINT32, FLOAT32, STRING = 4, 6, 8
F32 = 0


def gguf(
    shape: Shape, kind: str, head: str, types: dict[str, int], quantize: Callable[[NDArray[np.float32], str], bytes]
) -> Path:
    """The file, written if it is not there: blocks in `kind`, head in `head`, both names of `types`."""
    place = CACHE / f"{shape.name}-{kind}-{head}.gguf"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    tensors = _tensors(shape, gguf_tensors(shape, kind, head, quantize), types)
    pairs = _pairs(shape)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    offset = 0
    for name, dims, kind_number, data in tensors:
        header += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind_number, offset)
        offset += _padded(len(data))
    partial = place.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        file.write(header + bytes(_padded(len(header)) - len(header)))
        for _, _, _, data in tensors:
            file.write(data)
            file.write(bytes(_padded(len(data)) - len(data)))
    partial.rename(place)
    return place


def _tensors(shape: Shape, made: Any, types: dict[str, int]) -> list[tuple[str, tuple[int, ...], int, bytes]]:
    """name, dimensions (innermost first), type, data of the whole file."""
    vector = (shape.width,)
    weights = norm(shape).tobytes()
    found: list[tuple[str, tuple[int, ...], int, bytes]] = [("output_norm.weight", vector, F32, weights)]
    for name, (rows, cols), kind, data in made:
        if name in ("token_embd", "output"):
            found.append((f"{name}.weight", (cols, rows), types[kind], data))
            continue
        for layer in range(shape.layers):
            found.append((f"blk.{layer}.{name}.weight", (cols, rows), types[kind], data))
    for layer in range(shape.layers):
        found += [(f"blk.{layer}.{name}_norm.weight", vector, F32, weights) for name in ("attn", "ffn")]
    return found


def _pairs(shape: Shape) -> list[bytes]:
    numbers = {
        "vocab_size": shape.vocab, "context_length": shape.context, "embedding_length": shape.width,
        "block_count": shape.layers, "feed_forward_length": shape.inner, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.kv_heads, "rope.dimension_count": shape.head_dim,
    }  # fmt: skip
    floats = {"attention.layer_norm_rms_epsilon": EPS, "rope.freq_base": THETA}
    words = {"general.architecture": "llama", "general.name": shape.name, "tokenizer.ggml.model": "no_vocab"}
    return [
        *(_string(key) + struct.pack("<I", STRING) + _string(value) for key, value in words.items()),
        *(_string(f"llama.{key}") + struct.pack("<II", UINT32, value) for key, value in numbers.items()),
        *(_string(f"llama.{key}") + struct.pack("<If", FLOAT32, value) for key, value in floats.items()),
    ]


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _padded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
