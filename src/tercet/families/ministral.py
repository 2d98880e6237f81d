"""Ministral: Mistral whose layers have a window or none. Ministral 3: Mistral with yarn, whose queries grow with their
position behind the original context; what is kept here ends there, where the factor is still 1."""

from __future__ import annotations

from dataclasses import replace

from tercet.families.decoder import decoder
from tercet.families.layers import one_window, sliding_layers, windows
from tercet.families.rope import MAX_CONTEXT, parameters
from tercet.families.settings import Settings
from tercet.families.spec import DecoderSpec, plain

__all__ = ["FAMILY", "FAMILY3"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}
DEFAULTS3 = {
    **DEFAULTS,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 262144,
    "head_dim": 128,
    "sliding_window": None,
}
YARN3 = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
UNUSED = ("sliding_window",)


def spec(config: Settings) -> DecoderSpec:
    slides = config.raw("sliding_window") is not None
    sliding = sliding_layers(config, lambda _: slides)
    return plain("ministral", config, windows=windows(config, sliding))


def spec3(config: Settings) -> DecoderSpec:
    absent = config.raw("rope_parameters") is None and config.raw("rope_scaling") is None
    rope = parameters(config, YARN3 if absent else {})
    made = plain("ministral3", config, rope=rope, windows=one_window(config))
    if not rope.raw("llama_4_scaling_beta"):
        return made
    return replace(made, context=min(made.context, rope.integer("original_max_position_embeddings", 2, MAX_CONTEXT)))


FAMILY = decoder("Ministral", DEFAULTS, spec, UNUSED)
FAMILY3 = decoder("Ministral 3", DEFAULTS3, spec3, UNUSED)
