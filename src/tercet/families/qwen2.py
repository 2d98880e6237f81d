"""Qwen2 and Qwen2.5: Llama with biases on q, k and v; the layers from max_window_layers on may have a window."""

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
    "sliding_window": 4096,
    "max_window_layers": 28,
}
UNUSED = ("max_window_layers", "sliding_window", "use_mrope")


def spec(config: Settings) -> DecoderSpec:
    return plain("qwen2", config, windows=qwen_windows(config), qkv_bias=True)


FAMILY = decoder("Qwen2, Qwen2.5", DEFAULTS, spec, UNUSED)
