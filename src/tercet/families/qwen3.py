"""Qwen3: Qwen2 with a norm on each query and key head instead of the biases, and a head size of its own."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.layers import qwen_windows
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
UNUSED = ("max_window_layers", "sliding_window")


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    norms = ("q_norm", "k_norm")
    return plain("qwen3", config, windows=qwen_windows(config), qk_norms=norms, qkv_bias=biased, out_bias=biased)


FAMILY = decoder("Qwen3, dense", DEFAULTS, spec, UNUSED)
