"""Synthetic models of real shapes, written once into the cache: as the product's folders and, for the peers, as GGUF.

Weights are random; every block of a model holds the same ones, as bytes of its own. Both files stand for the same
model, so the peers' logits check ours and ours theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.weights import ternary
from tercet import artifact
from tercet.packing import PackedTensor, pack
from tercet.tensor import IntTensor, TernaryTensor

CACHE = Path(os.environ.get("TERCET_CACHE", Path.home() / ".cache" / "tercet")) / "bench-models"
PARTS = 16  # the embedding is this many times the same rows
EPS, THETA = 1e-5, 10000.0


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; embedding and head are one matrix."""

    name: str
    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    context: int

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def block(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) of a block's matrices by transformers' names."""
        kv = self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (self.width, self.width),
            "self_attn.k_proj": (kv, self.width),
            "self_attn.v_proj": (kv, self.width),
            "self_attn.o_proj": (self.width, self.width),
            "mlp.gate_proj": (self.inner, self.width),
            "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
        }

    @property
    def weights(self) -> int:
        """Weights of all blocks and of the embedding."""
        return self.layers * sum(rows * cols for rows, cols in self.block().values()) + self.vocab * self.width

    def config(self) -> dict[str, Any]:
        """As transformers would have it."""
        return {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": self.vocab,
            "hidden_size": self.width, "intermediate_size": self.inner, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim,
            "hidden_act": "silu", "rms_norm_eps": EPS, "rope_theta": THETA, "tie_word_embeddings": True,
            "max_position_embeddings": self.context, "attention_bias": False, "mlp_bias": False,
        }  # fmt: skip


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("smollm2", 49152, 576, 1536, 30, 9, 3, 8192),  # SmolLM2-135M
        Shape("0.7b", 32000, 1536, 4096, 24, 16, 16, 8192),  # BitNet large
        Shape("2b", 128256, 2560, 6912, 30, 20, 5, 8192),  # BitNet 2B
        Shape("8b-blocks", 32000, 4096, 14336, 8, 32, 8, 8192),  # 8 of Llama 8B's 32 blocks
    )
}


def linear(shape: Shape, name: str, group: int) -> TernaryTensor:
    """One of a block's matrices, `group` 0 for row scales."""
    rows, cols = shape.block()[name]
    seed = sorted(shape.block()).index(name)
    return TernaryTensor(*ternary(rows, cols, group or cols, seed), None)


def embedding_part(shape: Shape) -> IntTensor:
    """The rows that repeat, [vocab / PARTS, width], in groups of 64.

    4-bit integers with a -8 in every 32 columns: the product's q4 and llama.cpp's Q4_0 both hold them exactly.
    """
    rng = np.random.default_rng([11, shape.vocab, shape.width])
    rows = shape.vocab // PARTS
    codes = np.clip(np.rint(rng.standard_normal((rows, shape.width // 32, 32), np.float32) * 3), -7, 7).astype(np.int8)
    np.put_along_axis(codes, rng.integers(0, 32, (*codes.shape[:2], 1)), -8, axis=2)
    scale = np.full((rows, shape.width // 64), 0.0156, np.float16)
    return IntTensor(codes.reshape(rows, shape.width), 4, scale)


def norm(shape: Shape) -> NDArray[np.float32]:
    """float32[width]: every norm's weights."""
    return np.linspace(0.5, 1.5, shape.width, dtype=np.float32)


def folder(shape: Shape, kind: str = "t2", group: int = 0, head: str = "q4") -> Path:
    """The product's folder, written if it is not there: blocks in `kind`, embedding and head in `head`."""
    place = CACHE / f"{shape.name}-{kind}-{f'g{group}' if group else 'row'}-{head}"
    if place.exists():
        return place
    tensors: dict[str, PackedTensor | NDArray[np.float32]] = {
        "model.embed_tokens.weight": _embedding(shape, head),
        "model.norm.weight": norm(shape),
    }
    packed = {name: pack(linear(shape, name, group), kind) for name in shape.block()}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        tensors |= {f"{prefix}.{name}.weight": matrix for name, matrix in packed.items()}
        tensors |= {f"{prefix}.{name}.weight": norm(shape) for name in ("input_layernorm", "post_attention_layernorm")}
    place.parent.mkdir(parents=True, exist_ok=True)
    artifact.save(
        place, model=shape.config(), tensors=tensors, tokenizer_files={}, recipe={"name": "random"},
        card=f"# {shape.name}: random weights, to measure speed\n", generation={"eos_token_id": None},
        source={"name": "random"}, calibration={},
    )  # fmt: skip
    return place


def _embedding(shape: Shape, head: str) -> PackedTensor:
    part = embedding_part(shape)
    if head == "t2":
        codes = (np.sign(part.codes) * (np.abs(part.codes) > 1)).astype(np.int8)
        packed = pack(TernaryTensor(codes, np.full((len(codes), 1), 0.05, np.float16), None), "t2")
    elif head == "q4":
        packed = pack(part, head)
    else:
        packed = pack(IntTensor.quantize(part.dequantize(), 8, 64), head)
    assert packed.scale is not None
    return PackedTensor(
        head, (shape.vocab, shape.width), packed.group_size, np.tile(packed.codes, (PARTS, 1, 1)),
        np.tile(packed.scale, (PARTS, 1, 1)),
    )  # fmt: skip


def gguf_tensors(
    shape: Shape, kind: str, head: str, quantize: Callable[[NDArray[np.float32], str], bytes]
) -> Iterator[tuple[str, tuple[int, int], str, bytes]]:
    """name, (rows, columns), type and bytes of a GGUF's matrices, each made once.

    Args:
        quantize: float32 matrix and type to bytes, by the peer's own quantizer.
    """
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, (rows, cols) in shape.block().items():
        values = linear(shape, name, 0).dequantize()
        if name.endswith(("q_proj", "k_proj")):
            values = _interleave(values, shape.head_dim)
        yield names[name], (rows, cols), kind, quantize(values, kind)
    part = embedding_part(shape).dequantize()
    whole = (shape.vocab, shape.width)
    rows_of = {"Q4_0_R8": "Q4_0"}.get(head, head)  # a type whose rows can be looked up one by one
    yield "token_embd", whole, rows_of, quantize(part, rows_of) * PARTS
    if rows_of != head:
        yield "output", whole, head, quantize(part, head) * PARTS


def _interleave(values: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rows as llama.cpp's rope wants them: the halves of a head by turns."""
    rows, cols = values.shape
    return np.ascontiguousarray(
        values.reshape(rows // head_dim, 2, head_dim // 2, cols).swapaxes(1, 2).reshape(rows, cols)
    )
