"""Mistral: Llama without biases, every layer with the same sliding window (null in later versions: none)."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.layers import one_window
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}


def spec(config: Settings) -> DecoderSpec:
    return plain("mistral", config, windows=one_window(config))


FAMILY = decoder("Mistral", DEFAULTS, spec)
