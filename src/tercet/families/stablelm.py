"""StableLM 2, StableLM 3B and Zephyr: Llama with LayerNorms, a quarter of each head rotated; attention and MLP side by
side in some."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.25,
}


def spec(config: Settings) -> DecoderSpec:
    if config.flag("qk_layernorm"):
        raise config.error("qk_layernorm", "false: norms whose weights differ by head are not supported")
    return plain(
        "stablelm",
        config,
        eps="layer_norm_eps",
        partial=True,
        norm="layernorm",
        parallel=1 if config.flag("use_parallel_residual") else 0,
        qkv_bias=config.flag("use_qkv_bias"),
    )


FAMILY = decoder("StableLM", DEFAULTS, spec)
