"""Llama, and what is built like it (SmolLM2, TinyLlama, Yi ...): pre-norm, SwiGLU, optional biases."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    return plain("llama", config, qkv_bias=biased, out_bias=biased, mlp_bias=config.flag("mlp_bias"))


FAMILY = decoder("Llama, SmolLM2, and other models of this architecture", DEFAULTS, spec)
