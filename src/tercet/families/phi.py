"""Phi-1, 1.5 and 2, and the text model of moondream: one LayerNorm feeds attention and MLP side by side; biases
everywhere, also in the head; each head is rotated in part."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.5,
}


def spec(config: Settings) -> DecoderSpec:
    return plain(
        "phi",
        config,
        eps="layer_norm_eps",
        partial=True,
        norm="layernorm",
        qk_norms=("q_layernorm", "k_layernorm") if config.flag("qk_layernorm") else None,
        parallel=1,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        out="dense",
        mlp=("fc1", "fc2"),
        final_norm="model.final_layernorm",
    )


FAMILY = decoder("Phi-1, Phi-1.5, Phi-2, moondream's text model", DEFAULTS, spec)
