"""Seed-OSS: Llama with biases on q, k and v, and a flag of its own for the one of attention's last matrix."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 524288,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": True,
}


def spec(config: Settings) -> DecoderSpec:
    return plain(
        "seed_oss",
        config,
        qkv_bias=config.flag("attention_bias"),
        out_bias=config.flag("attention_out_bias"),
        mlp_bias=config.flag("mlp_bias"),
    )


FAMILY = decoder("Seed-OSS", DEFAULTS, spec)
