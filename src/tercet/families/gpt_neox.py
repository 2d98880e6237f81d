"""GPT-NeoX and Pythia: two LayerNorms feed attention and MLP side by side; one matrix holds q, k and v head by head; a
quarter of each head is rotated; no gate."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.rope import parameters
from tercet.families.rows import parted_by_head
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain
from tercet.program import Stored

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "rotary_emb_base": 10000.0,
    "rotary_pct": 0.25,
    "use_parallel_residual": True,
    "attention_bias": True,
}
NAMES = {
    "model.embed_tokens": "model.embed_in",
    "self_attn.o_proj": "attention.dense",
    "mlp.up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
    "model.norm": "model.final_layer_norm",
    "lm_head": "embed_out",
}
UNUSED = ("rope_theta", "partial_rotary_factor")


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    made = plain(
        "gpt_neox",
        config,
        eps="layer_norm_eps",
        partial=True,
        rope=_rope(config),
        norm="layernorm",
        parallel=2 if config.flag("use_parallel_residual") else 0,
        qkv_bias=biased,
        out_bias=biased,
        mlp_bias=True,
        mlp=("up_proj", "down_proj"),
        root="gpt_neox.",
    )
    if made.shape.heads * made.shape.head_dim != made.shape.width or made.shape.kv_heads != made.shape.heads:
        raise config.error("num_attention_heads", "what divides hidden_size, with as many heads of keys and values")
    names = {ours: Stored(theirs) for ours, theirs in NAMES.items()}
    return replace(made, stored=names | parted_by_head(made.shape, "attention.query_key_value"))


def _rope(config: Settings) -> Settings:
    """Older files have words of their own."""
    own = {"rope_theta": config.raw("rotary_emb_base"), "partial_rotary_factor": config.raw("rotary_pct")}
    return parameters(config, own)


FAMILY = decoder("GPT-NeoX, Pythia", DEFAULTS, spec, UNUSED)
