"""Phi-1, 1.5 and 2, and the text model of moondream: one LayerNorm feeds attention and MLP side by side; biases
everywhere, also in the head; each head is rotated in part."""

from __future__ import annotations

from tercet.families.decoder import ACTIVATIONS, DecoderSpec, decoder, read_shape
from tercet.families.rope import make_rope, parameters
from tercet.families.settings import Settings

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "partial_rotary_factor": 0.5,
}


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    rope, context = make_rope(parameters(config), shape.head_dim, shape.positions, partial=True)
    return DecoderSpec(
        family="phi",
        shape=shape,
        context=context,
        windows=(0,) * shape.layers,
        ropes=(rope,),
        layer_ropes=(0,) * shape.layers,
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("layer_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
        norm="layernorm",
        qk_norms=("q_layernorm", "k_layernorm") if config.flag("qk_layernorm") else None,
        parallel=True,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=True,
        out="dense",
        mlp=("fc1", "fc2"),
        final_norm="model.final_layernorm",
    )


FAMILY = decoder("Phi-1, Phi-1.5, Phi-2, moondream's text model", DEFAULTS, spec)
