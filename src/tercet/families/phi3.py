"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama whose q, k, v and gate, up are stored as one matrix each. Mini models
rotate a part of each head; long ones have the longrope scaling."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.layers import one_window
from tercet.families.rows import fused_mlp, fused_qkv
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": None,
}
UNUSED = ("full_attn_mod", "interpolate_factor", "original_max_position_embeddings")


def spec(config: Settings) -> DecoderSpec:
    made = plain("phi3", config, partial=True, windows=one_window(config))
    parts = fused_qkv(made.shape, "self_attn.qkv_proj") | fused_mlp(made.shape, "mlp.gate_up_proj")
    return replace(made, stored=parts)


FAMILY = decoder("Phi-3, Phi-3.5, Phi-4", DEFAULTS, spec, UNUSED)
