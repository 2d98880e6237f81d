"""Mistral: Llama without biases, every layer with the same sliding window (null in later versions: none)."""

from __future__ import annotations

from tercet.families.decoder import ACTIVATIONS, DecoderSpec, decoder, read_shape
from tercet.families.rope import MAX_CONTEXT, make_rope, parameters
from tercet.families.settings import Settings

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    rope, context = make_rope(parameters(config), shape.head_dim, shape.positions)
    window = 0 if config.raw("sliding_window") is None else config.integer("sliding_window", 1, MAX_CONTEXT)
    return DecoderSpec(
        family="mistral",
        shape=shape,
        context=context,
        windows=(window,) * shape.layers,
        ropes=(rope,),
        layer_ropes=(0,) * shape.layers,
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
    )


FAMILY = decoder("Mistral", DEFAULTS, spec)
