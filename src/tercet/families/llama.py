"""Llama, and what is built like it (SmolLM2, TinyLlama, Yi ...): pre-norm, SwiGLU, optional biases."""

from __future__ import annotations

from tercet.families.decoder import ACTIVATIONS, DecoderSpec, decoder, read_shape
from tercet.families.rope import make_rope, parameters
from tercet.families.settings import Settings

__all__ = ["FAMILY"]

DEFAULTS = {"hidden_act": "silu", "rms_norm_eps": 1e-6, "max_position_embeddings": 2048}


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    rope, context = make_rope(parameters(config), shape.head_dim, shape.positions)
    biased = config.flag("attention_bias")
    return DecoderSpec(
        family="llama",
        shape=shape,
        context=context,
        windows=(0,) * shape.layers,
        ropes=(rope,),
        layer_ropes=(0,) * shape.layers,
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
        qkv_bias=biased,
        out_bias=biased,
        mlp_bias=config.flag("mlp_bias"),
    )


FAMILY = decoder("Llama, SmolLM2, and other models of this architecture", DEFAULTS, spec)
