"""Helium: Llama whose heads are rotated in neighbouring columns."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.rows import neighbours
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-8,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 20,
    "head_dim": 128,
    "rope_theta": 100000.0,
}


def spec(config: Settings) -> DecoderSpec:
    made = plain("helium", config, qkv_bias=config.flag("attention_bias"), mlp_bias=config.flag("mlp_bias"))
    return replace(made, stored=neighbours(made.shape, made.shape.head_dim))


FAMILY = decoder("Helium", DEFAULTS, spec)
