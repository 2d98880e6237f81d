"""ERNIE 4.5, dense: Llama whose heads are rotated in neighbouring columns."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.rows import neighbours
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("use_bias")
    made = plain("ernie4_5", config, qkv_bias=biased, out_bias=biased, mlp_bias=biased)
    return replace(made, stored=neighbours(made.shape, made.shape.head_dim))


FAMILY = decoder("ERNIE 4.5, dense", DEFAULTS, spec)
