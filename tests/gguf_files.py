"""GGUF files for tests: `write` makes a whole one from a tiny transformers model with gguf-py, as llama.cpp's converter
would; `Raw` lays one out byte by byte and remembers where each field is, for files that nobody should have written.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quants
from numpy.typing import NDArray
from tokenizers import Tokenizer

__all__ = ["Raw", "add_tokenizer", "rotate_rows", "small", "write"]

LLAMA_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "model.final_layernorm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.dense": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = {
    **LLAMA_NAMES,
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def rotate_rows(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """q/k rows as "llama" files have them: row i of a head's first half, then row i of its second half."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab: int, pre: str, special: list[str]) -> None:
    """Metadata of a byte-level BPE tokenizer, its vocabulary filled up to `vocab` with unused tokens."""
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    kinds = [3 if token in special else 1 for token in tokens]
    unused = [f"[PAD{index}]" for index in range(len(tokens), vocab)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + unused)
    writer.add_token_types(kinds + [5] * len(unused))
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])


ARCHITECTURES = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}
NAMED = ("llama", "qwen2", "qwen3", "gemma3", "phi2")
PERMUTED = ("llama", "granite", "smollm3")  # q and k as rotated in neighbouring pairs


def write(
    path: Path,
    architecture: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, NDArray[np.float32]],
    tokenizer: Callable[[GGUFWriter], None],
    extra: Callable[[GGUFWriter], None] = lambda _: None,
    quantized: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """A GGUF of `tensors` (transformers' names); matrices are stored as `quantized`, the rest as F32."""
    writer = GGUFWriter(path, architecture)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_vocab_size(config["vocab_size"])
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(config["norm_epsilon" if architecture == "starcoder2" else "layer_norm_eps"])
    if architecture != "phi2":
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    tokenizer(writer)
    extra(writer)
    names = GEMMA_NAMES if architecture == "gemma3" else LLAMA_NAMES
    others = get_tensor_name_map(ARCHITECTURES[architecture], config["num_hidden_layers"])  # llama.cpp's own table
    for name, values in tensors.items():
        stem, suffix = name.rsplit(".", 1)
        block = stem.removeprefix("model.layers.")
        layer, _, leaf = block.partition(".")
        if architecture in NAMED:
            target = f"blk.{layer}.{names[leaf]}" if block != stem else names[stem]
        else:
            target = str(others.get_name(stem))
        stored = values
        if architecture in PERMUTED and target.endswith(("attn_q", "attn_k")):
            stored = rotate_rows(values, heads if target.endswith("attn_q") else kv_heads)
        if architecture in ("gemma", "gemma3") and stem.endswith("norm"):
            stored = values + np.float32(1)
        kind = quantized if values.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(f"{target}.{suffix}", quants.quantize(stored, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class Raw:
    """A GGUF being laid out. `fields` lists (name, byte offset, struct format) of every number in the header."""

    def __init__(self, pairs: int, tensors: int, version: int = 3) -> None:
        self.data = bytearray(b"GGUF")
        self.fields: list[tuple[str, int, str]] = []
        self.put("version", "<I", version)
        self.put("tensor count", "<Q", tensors)
        self.put("pair count", "<Q", pairs)

    def put(self, name: str, fmt: str, value: float) -> None:
        self.fields.append((name, len(self.data), fmt))
        self.data += struct.pack(fmt, value)

    def string(self, text: str | bytes) -> None:
        raw = text.encode() if isinstance(text, str) else text
        self.put("length", "<Q", len(raw))
        self.data += raw

    def pair(self, key: str, value: Any) -> None:
        """One key/value pair: str, bool, int (u32), float (f32), list of str or of int (i32)."""
        self.string(key)
        if isinstance(value, list):
            self.put("type", "<I", 9)
            text = isinstance(value[0], str)
            self.put("element type", "<I", 8 if text else 5)
            self.put("count", "<Q", len(value))
            for element in value:
                if text:
                    self.string(element)
                else:
                    self.put("element", "<i", element)
        elif isinstance(value, str):
            self.put("type", "<I", 8)
            self.string(value)
        else:
            kind, fmt = {bool: (7, "<?"), int: (4, "<I"), float: (6, "<f")}[type(value)]
            self.put("type", "<I", kind)
            self.put("value", fmt, value)

    def info(self, name: str, dims: list[int], kind: int, offset: int) -> None:
        self.string(name)
        self.put("ndim", "<I", len(dims))
        for dim in dims:
            self.put("dim", "<Q", dim)
        self.put("kind", "<I", kind)
        self.put("offset", "<Q", offset)


SMALL = {
    "general.architecture": "llama",
    "general.alignment": 32,
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 1,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "c", "ab", "abc", "\u0120", "\u0120a"],
    "tokenizer.ggml.token_type": [3, 1, 1, 1, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b", "ab c", "\u0120 a"],
    "tokenizer.ggml.eos_token_id": 0,
    "tokenizer.ggml.add_bos_token": False,
}
SMALL_TENSORS = {
    "token_embd.weight": ([32, 8], 8),
    "output_norm.weight": ([32], 0),
    "blk.0.attn_norm.weight": ([32], 0),
    "blk.0.ffn_norm.weight": ([32], 0),
    "blk.0.attn_q.weight": ([32, 32], 8),
    "blk.0.attn_k.weight": ([32, 16], 3),
    "blk.0.attn_v.weight": ([32, 16], 1),
    "blk.0.attn_output.weight": ([32, 32], 2),
    "blk.0.ffn_gate.weight": ([32, 32], 6),
    "blk.0.ffn_up.weight": ([32, 32], 7),
    "blk.0.ffn_down.weight": ([32, 32], 30),
}
BYTES = {0: 128, 1: 64, 2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 30: 64}  # of 32 weights


def small(pairs: Mapping[str, Any] = SMALL, tensors: Mapping[str, tuple[list[int], int]] = SMALL_TENSORS) -> Raw:
    """A valid model of one block and eight tokens, its matrices in seven types; or one laid out from other entries."""
    raw = Raw(len(pairs), len(tensors))
    for key, value in pairs.items():
        raw.pair(key, value)
    offset, sizes = 0, []
    for name, (dims, kind) in tensors.items():
        raw.info(name, dims, kind, offset)
        sizes.append(int(np.prod(dims)) // 32 * BYTES[kind])
        offset += -(-sizes[-1] // 32) * 32
    for size in sizes:
        raw.data += bytes(-len(raw.data) % 32) + b"\x01\x20" * (size // 2)
    raw.data += bytes(-len(raw.data) % 32)
    return raw
