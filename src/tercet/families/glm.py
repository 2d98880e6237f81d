"""GLM-4 of the first kind (model_type glm) and of 2025 (glm4): half of each head is rotated, in neighbouring columns;
gate and up are one matrix. The later one has norms on both sides of attention and MLP."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.rows import fused_mlp, neighbours
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain
from tercet.program import Stored

__all__ = ["FAMILY", "FAMILY4"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1.5625e-7,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "partial_rotary_factor": 0.5,
    "attention_bias": True,
}
NORMS = {
    "post_attention_layernorm": "post_self_attn_layernorm",
    "pre_feedforward_layernorm": "post_attention_layernorm",
    "post_feedforward_layernorm": "post_mlp_layernorm",
}


def spec(config: Settings) -> DecoderSpec:
    made = plain("glm", config, partial=True, qkv_bias=config.flag("attention_bias"))
    rotary = 2 * made.ropes[0].inv_freq.size
    return replace(made, stored=neighbours(made.shape, rotary) | fused_mlp(made.shape, "mlp.gate_up_proj"))


def spec4(config: Settings) -> DecoderSpec:
    made = spec(config)
    norms = {ours: Stored(theirs) for ours, theirs in NORMS.items()}
    return replace(made, family="glm4", norms="both", stored={**made.stored, **norms})


FAMILY = decoder("GLM-4, GLM-Edge", DEFAULTS, spec)
FAMILY4 = decoder("GLM-4 of 2025", DEFAULTS, spec4)
