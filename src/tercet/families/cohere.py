"""Command R (cohere) and R7B (cohere2): one LayerNorm without bias feeds attention and MLP side by side; neighbouring
columns are rotated; logits have a factor, which is multiplied into the last norm. In the later one three of four layers
have a window, and the others no RoPE."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.layers import sliding_layers, windows
from tercet.families.rows import neighbours
from tercet.families.settings import Settings
from tercet.families.spec import NO_ROPE, DecoderSpec, plain
from tercet.program import Stored

__all__ = ["FAMILY", "FAMILY2"]

DEFAULTS = {
    "hidden_act": "silu",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "logit_scale": 0.0625,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
}
DEFAULTS2 = {**DEFAULTS, "rope_theta": 10000.0, "sliding_window": 4096, "sliding_window_pattern": 4}
UNUSED = (
    "layer_switch",
    "order_of_interleaved_layers",
    "position_embedding_type",
    "rotary_pct",
    "use_embedding_sharing",
    "use_gated_activation",
    "use_parallel_block",
    "use_parallel_embedding",
)


def spec(config: Settings) -> DecoderSpec:
    if config.flag("use_qk_norm"):
        raise config.error("use_qk_norm", "false: norms whose weights differ by head are not supported")
    biased = config.flag("attention_bias")
    made = plain(
        "cohere",
        config,
        eps="layer_norm_eps",
        norm="layernorm",
        norm_bias=False,
        parallel=1,
        qkv_bias=biased,
        out_bias=biased,
    )
    norm = Stored("model.norm", factor=config.number("logit_scale", 1e-6, 1e6))
    return replace(made, stored=neighbours(made.shape, made.shape.head_dim) | {"model.norm": norm})


def spec2(config: Settings) -> DecoderSpec:
    period = config.integer("sliding_window_pattern", 1, 1 << 20)
    sliding = sliding_layers(config, lambda layer: (layer + 1) % period != 0)
    ropes = tuple(0 if slides else NO_ROPE for slides in sliding)
    return replace(spec(config), family="cohere2", windows=windows(config, sliding), layer_ropes=ropes)


FAMILY = decoder("Command R", DEFAULTS, spec, UNUSED)
FAMILY2 = decoder("Command R7B, Command A", DEFAULTS2, spec2, UNUSED)
