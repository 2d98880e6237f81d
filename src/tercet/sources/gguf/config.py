"""A transformers config out of GGUF metadata.

Only what changes the computed numbers is taken over; every number is checked for type and range first, since layer
and head counts of a hostile file would otherwise become loops, shapes and divisors. What a GGUF leaves unsaid is
filled in as llama.cpp does: Gemma 3's pattern of window layers (every sixth is full), its local RoPE base, its score
scale; Llama 3.1's RoPE scaling, which is stored as a tensor of factors, is matched with the rule that made it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError, ModelError
from tercet.sources.gguf.fields import FIELDS, PARTIAL
from tercet.sources.gguf.names import LAYOUTS
from tercet.sources.gguf.reader import GGUFFile

__all__ = ["config", "sizes"]

MAX_SIZE = 1 << 24
# Keys that change no number: of memory layouts, of training, and those that another key of the file repeats.
UNUSED = ("tensor_data_layout", "pooling_type", "rope.scaling.finetuned", "rope.scaling.original_context_length")
LAYER_NORMS = ("cohere2", "stablelm", "starcoder2")
GEMMA_27B_LAYERS = 62  # the one Gemma 3 whose scores are scaled by hidden/heads instead of the head size


class _Settings:
    """Typed, range-checked access to the keys of one architecture."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self.file, self.prefix = file, architecture
        self._reads = set(UNUSED)

    def refuse_unread(self) -> None:
        """Raises ModelError for a key of the architecture that is set and that nobody has read."""
        for name, value in self.file.metadata.items():
            key = name.removeprefix(f"{self.prefix}.")
            off = value is None or (isinstance(value, (bool, int, float, str, list)) and not value)
            if key != name and key not in self._reads and not off:
                raise ModelError(
                    f"{self.file.path}: metadata {name[:80]} may change what the model computes, and is not supported"
                )

    def _get(self, key: str) -> Any:
        self._reads.add(key)
        return self.file.metadata.get(f"{self.prefix}.{key}")

    def fail(self, key: str, why: str) -> FormatError:
        return FormatError(f"{self.file.path}: metadata {self.prefix}.{key} {why}")

    def size(self, key: str, default: int | None = None) -> int:
        value = self._get(key)
        if value is None:
            if default is None:
                raise self.fail(key, "is missing; the file does not describe a whole model")
            return default
        if isinstance(value, (list, np.ndarray)):
            raise ModelError(f"{self.file.path}: {self.prefix}.{key} differs by layer, which is not supported")
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_SIZE:
            raise self.fail(key, f"is {value!r}, expected an integer from 1 to {MAX_SIZE}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self._get(key)
        if value is None:
            if default is None:
                raise self.fail(key, "is missing; the file does not describe a whole model")
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
            raise self.fail(key, f"is {value!r}, expected a positive number")
        # Stored as float32; the shortest decimal that rounds to it is what the author wrote (1e-5, not 9.99...e-06).
        return float(str(np.float32(value)))

    def text(self, key: str) -> str:
        value = self._get(key)
        if value is not None and not isinstance(value, str):
            raise self.fail(key, "is not a string")
        return value or ""


def config(file: GGUFFile) -> dict[str, Any]:
    """What config.json of the same model holds, as transformers 5 writes it. Raises FormatError or ModelError."""
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str) or architecture not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise ModelError(f"{file.path}: GGUF architecture {str(architecture)[:80]!r} is not supported; known: {known}")
    get = _Settings(file, architecture)
    made = _made(file, architecture, get)
    get.refuse_unread()
    return made


def _made(file: GGUFFile, architecture: str, get: _Settings) -> dict[str, Any]:
    layout = LAYOUTS[architecture]
    heads, hidden = get.size("attention.head_count"), get.size("embedding_length")
    if hidden % heads and get._get("attention.key_length") is None:
        raise get.fail("embedding_length", f"{hidden} is not a multiple of {heads} heads")
    head_dim = get.size("attention.key_length", hidden // heads if hidden >= heads else None)
    if get.size("attention.value_length", head_dim) != head_dim:
        raise get.fail("attention.value_length", "differs from key_length, which is not supported")
    kv_heads = get.size("attention.head_count_kv", heads)
    if heads % kv_heads or head_dim % 2:
        raise get.fail("attention.head_count", f"{heads} heads of {head_dim} do not fit {kv_heads} KV heads")
    made: dict[str, Any] = {
        "architectures": [layout.class_name],
        "model_type": layout.model_type,
        "dtype": "float32",
        "vocab_size": _vocabulary(file, get),
        "hidden_size": hidden,
        "intermediate_size": get.size("feed_forward_length"),
        "num_hidden_layers": get.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": get.size("context_length"),
        "pad_token_id": None,  # a class's own default may lie outside of the vocabulary
        "bos_token_id": None,
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    if made["num_hidden_layers"] > len(file.tensors):
        raise get.fail("block_count", f"is {made['num_hidden_layers']}, but the file has {len(file.tensors)} tensors")
    if architecture == "phi2":
        return made | _phi(get, head_dim, hidden == heads * head_dim)
    made |= {"head_dim": head_dim}
    if architecture not in LAYER_NORMS:
        made["rms_norm_eps"] = get.number("attention.layer_norm_rms_epsilon")
    rotary = get.size("rope.dimension_count", head_dim)
    if architecture in FIELDS:
        return made | FIELDS[architecture](get, file) | _rotary(get, file, head_dim, rotary)
    if rotary != head_dim:
        raise get.fail("rope.dimension_count", f"is not the head size {head_dim}; only phi2 may rotate a part")
    if architecture == "gemma3":
        return made | _gemma(get, made)
    made |= {"hidden_act": "silu", "rope_parameters": _rope(get, file, head_dim)}
    if architecture in ("llama", "qwen3"):
        made["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
    if architecture == "llama":
        made["mlp_bias"] = "blk.0.ffn_up.bias" in file.tensors
    return made


def _rotary(get: _Settings, file: GGUFFile, head_dim: int, rotary: int) -> dict[str, Any]:
    """RoPE, of the first `rotary` columns of a head."""
    if rotary > head_dim or rotary % 2 or (rotary != head_dim and get.prefix not in PARTIAL):
        raise get.fail("rope.dimension_count", f"is {rotary} for heads of {head_dim}")
    part = {"partial_rotary_factor": rotary / head_dim}
    made = _rope(get, file, rotary)
    return {"rope_parameters": {**made, **part}, **part} if get.prefix in PARTIAL else {"rope_parameters": made}


def sizes(made: dict[str, Any]) -> dict[str, int]:
    """The sizes that the shapes of `names` are written in."""
    heads, hidden = made["num_attention_heads"], made["hidden_size"]
    head = made.get("head_dim") or hidden // heads
    return {
        "vocab": made["vocab_size"],
        "hidden": hidden,
        "ffn": made["intermediate_size"],
        "head": head,
        "q": heads * head,
        "kv": made["num_key_value_heads"] * head,
        "q+2kv": (heads + 2 * made["num_key_value_heads"]) * head,
        "2ffn": 2 * made["intermediate_size"],
    }


def _vocabulary(file: GGUFFile, get: _Settings) -> int:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise FormatError(f"{file.path}: metadata tokenizer.ggml.tokens is missing; the file has no vocabulary")
    if get.size("vocab_size", len(tokens)) != len(tokens):
        raise get.fail("vocab_size", f"is {get.size('vocab_size')}, but the vocabulary has {len(tokens)} tokens")
    return len(tokens)


def _phi(get: _Settings, head_dim: int, square: bool) -> dict[str, Any]:
    rotary = get.size("rope.dimension_count", head_dim)
    if not square or rotary > head_dim or rotary % 2:
        raise get.fail("rope.dimension_count", f"is {rotary} for heads of {head_dim}; phi2 needs hidden = heads * head")
    theta = get.number("rope.freq_base", 10000.0)
    return {
        "hidden_act": "gelu_new",
        "layer_norm_eps": get.number("attention.layer_norm_epsilon"),
        "qk_layernorm": False,
        "partial_rotary_factor": rotary / head_dim,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": rotary / head_dim},
    }


def _gemma(get: _Settings, made: dict[str, Any]) -> dict[str, Any]:
    layers = made["num_hidden_layers"]
    period = get.size("attention.sliding_window_pattern", 6)
    full: dict[str, Any] = {"rope_type": "default", "rope_theta": get.number("rope.freq_base", 1000000.0)}
    full |= _scaling(get)
    local = {"rope_type": "default", "rope_theta": get.number("rope.freq_base_swa", 10000.0)}
    scale = made["hidden_size"] // made["num_attention_heads"] if layers == GEMMA_27B_LAYERS else made["head_dim"]
    capping = get.number("final_logit_softcapping", 0.0)
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "query_pre_attn_scalar": scale,
        "sliding_window": get.size("attention.sliding_window"),
        "layer_types": ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(layers)],
        "rope_parameters": {"full_attention": full, "sliding_attention": local},
        "final_logit_softcapping": capping or None,
        "attn_logit_softcapping": None,
    }


def _rope(get: _Settings, file: GGUFFile, head_dim: int) -> dict[str, Any]:
    made: dict[str, Any] = {"rope_type": "default", "rope_theta": get.number("rope.freq_base", 10000.0)}
    scaling = _scaling(get)
    if "rope_freqs.weight" not in file.tensors:
        return made | scaling
    factors = file.read("rope_freqs.weight").ravel()
    if scaling or factors.size != head_dim // 2:
        raise ModelError(f"{file.path}: rope_freqs.weight does not fit its heads, or stands beside other scaling")
    return made | _llama3(factors, made["rope_theta"], head_dim, file.path)


def _scaling(get: _Settings) -> dict[str, Any]:
    kind = get.text("rope.scaling.type") or "none"
    factor = get.number("rope.scaling.factor", 1.0)
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return {}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = get.size("rope.scaling.original_context_length")
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    raise get.fail("rope.scaling.type", f"is {kind[:40]!r}; none, linear and yarn are supported")


def _llama3(factors: NDArray[np.float32], theta: float, head_dim: int, where: Path) -> dict[str, Any]:
    """Find the settings of the "llama3" rule (wavelengths beyond original/low are stretched by `factor`) that gave
    these factors: the published models all use low 1 and high 4, and differ in factor and original context.
    """
    factor = float(factors.max())
    if np.allclose(factors, 1.0):
        return {}
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    for original in (8192, 4096, 2048, 16384, 32768):
        smooth = np.clip((original / wavelength - 1.0) / 3.0, 0.0, 1.0)
        if np.allclose(factors, 1.0 / ((1 - smooth) / factor + smooth), rtol=1e-3):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise ModelError(f"{where}: the factors of rope_freqs.weight follow no known rule; use the safetensors model")
