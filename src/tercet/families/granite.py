"""Granite 3: Llama with four multipliers: of the embedding, of q.k, of what joins the residual, of the logits.

That of the residual is multiplied into the last matrices of attention and MLP, that of the logits into the last
norm."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain
from tercet.program import Stored

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 2048,
    "embedding_multiplier": 1.0,
    "logits_scaling": 1.0,
    "residual_multiplier": 1.0,
    "attention_multiplier": 1.0,
}
LOW, HIGH = 1e-6, 1e6


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    residual = config.number("residual_multiplier", LOW, HIGH)
    stored = {name: Stored(name, factor=residual) for name in ("self_attn.o_proj", "mlp.down_proj")}
    return plain(
        "granite",
        config,
        embedding_factor=config.number("embedding_multiplier", LOW, HIGH),
        attention_factor=config.number("attention_multiplier", LOW, HIGH),
        qkv_bias=biased,
        out_bias=biased,
        mlp_bias=config.flag("mlp_bias"),
        stored=stored | {"model.norm": Stored("model.norm", factor=1 / config.number("logits_scaling", LOW, HIGH))},
    )


FAMILY = decoder("Granite 3, dense", DEFAULTS, spec)
