"""InternLM3: Llama; what it calls qkv_bias and bias, transformers saves as attention_bias and mlp_bias."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 2,
    "head_dim": 128,
}


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("bias") or config.flag("mlp_bias")
    if biased != (config.flag("qkv_bias") or config.flag("attention_bias")):
        raise config.error("qkv_bias", "what bias is")
    return plain("internlm3", config, qkv_bias=biased, out_bias=biased, mlp_bias=biased)


FAMILY = decoder("InternLM3", DEFAULTS, spec)
