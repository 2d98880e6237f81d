"""Qwen3: Qwen2 with a norm on each query and key head instead of the biases, and a head size of its own."""

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
    "head_dim": 128,
    "sliding_window": 4096,
    "max_window_layers": 28,
}


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    rope, context = make_rope(parameters(config), shape.head_dim, shape.positions)
    biased = config.flag("attention_bias")
    return DecoderSpec(
        family="qwen3",
        shape=shape,
        context=context,
        windows=qwen_windows(config, shape.layers),
        ropes=(rope,),
        layer_ropes=(0,) * shape.layers,
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
        qk_norms=("q_norm", "k_norm"),
        qkv_bias=biased,
        out_bias=biased,
    )


FAMILY = decoder("Qwen3, dense", DEFAULTS, spec)
