"""Qwen2 and Qwen2.5: Llama with biases on q, k and v; the layers from max_window_layers on may have a window."""

from __future__ import annotations

from tercet.families.decoder import ACTIVATIONS, DecoderSpec, decoder, read_shape
from tercet.families.layers import qwen_windows
from tercet.families.rope import make_rope, parameters
from tercet.families.settings import Settings

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    rope, context = make_rope(parameters(config), shape.head_dim, shape.positions)
    return DecoderSpec(
        family="qwen2",
        shape=shape,
        context=context,
        windows=qwen_windows(config, shape.layers),
        ropes=(rope,),
        layer_ropes=(0,) * shape.layers,
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
        qkv_bias=True,
    )


FAMILY = decoder("Qwen2, Qwen2.5", DEFAULTS, spec)
