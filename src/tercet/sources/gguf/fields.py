"""What the config of an architecture has beside what all have: one small function each, by llama.cpp's keys.

Norms' eps, RoPE and the rest of `tercet.sources.gguf.config` are done there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tercet.sources.gguf.reader import GGUFFile

__all__ = ["FIELDS", "PARTIAL", "Keys"]

PARTIAL = ("glm4", "stablelm", "phi3")  # may rotate a part of each head
BIAS = "blk.0.attn_q.bias"


class Keys(Protocol):
    """Checked access to an architecture's metadata."""

    def size(self, key: str, default: int | None = None) -> int: ...

    def number(self, key: str, default: float | None = None) -> float: ...


def _granite(get: Keys, _: GGUFFile) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "embedding_multiplier": get.number("embedding_scale", 1.0),
        "attention_multiplier": get.number("attention.scale"),
        "residual_multiplier": get.number("residual_scale", 1.0),
        "logits_scaling": get.number("logit_scale", 1.0),
    }


def _starcoder2(get: Keys, _: GGUFFile) -> dict[str, Any]:
    return {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": get.number("attention.layer_norm_epsilon"),
        "use_bias": True,
        "sliding_window": None,
    }


def _stablelm(get: Keys, file: GGUFFile) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "layer_norm_eps": get.number("attention.layer_norm_epsilon"),
        "use_qkv_bias": BIAS in file.tensors,
    }


def _cohere2(get: Keys, _: GGUFFile) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "layer_norm_eps": get.number("attention.layer_norm_epsilon"),
        "logit_scale": get.number("logit_scale"),
        "sliding_window": get.size("attention.sliding_window"),
        "sliding_window_pattern": 4,
    }


def _exaone4(get: Keys, _: GGUFFile) -> dict[str, Any]:
    """Those without windows."""
    layers = ["full_attention"] * get.size("block_count")
    return {"hidden_act": "silu", "sliding_window": None, "layer_types": layers}


def _phi3(get: Keys, _: GGUFFile) -> dict[str, Any]:
    return {"hidden_act": "silu", "sliding_window": get.size("attention.sliding_window", 0) or None}


FIELDS: dict[str, Callable[[Keys, GGUFFile], dict[str, Any]]] = {
    "cohere2": _cohere2,
    "ernie4_5": lambda _, __: {"hidden_act": "silu", "use_bias": False},
    "exaone4": _exaone4,
    "gemma": lambda _, __: {"hidden_act": "gelu_pytorch_tanh"},
    "glm4": lambda _, file: {"hidden_act": "silu", "attention_bias": BIAS in file.tensors},
    "granite": _granite,
    "olmo2": lambda _, __: {"hidden_act": "silu"},
    "phi3": _phi3,
    "smollm3": lambda _, __: {"hidden_act": "silu", "no_rope_layer_interval": 4},
    "stablelm": _stablelm,
    "starcoder2": _starcoder2,
}
