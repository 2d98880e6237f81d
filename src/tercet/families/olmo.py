"""OLMo: Llama whose LayerNorms have neither weight nor bias, with q, k and v clipped in some.

OLMo 2: RMSNorms after attention and MLP in place of those before, and over the whole of q and of k.
OLMo 3: OLMo 2 with a window in three of four layers, whose RoPE is not scaled."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.layers import layer_rope, sliding_layers, windows
from tercet.families.rope import make_rope
from tercet.families.settings import Settings
from tercet.families.spec import ACTIVATIONS, DecoderSpec, plain, read_shape
from tercet.program import Stored

__all__ = ["FAMILY", "FAMILY2", "FAMILY3"]

DEFAULTS = {"hidden_act": "silu", "layer_norm_eps": 1e-5, "max_position_embeddings": 2048}
DEFAULTS2 = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": 2048}
DEFAULTS3 = {**DEFAULTS2, "sliding_window": 4096}
THETA3 = 500000.0
ONES = Stored("")
UNUSED = ("sliding_window",)


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    limit = 0.0 if config.raw("clip_qkv") is None else config.number("clip_qkv", 1e-6, 1e6)
    return plain(
        "olmo",
        config,
        eps="layer_norm_eps",
        norm="layernorm",
        norm_bias=False,
        qkv_bias=biased,
        qkv_limit=limit,
        out_bias=biased,
        stored={"input_layernorm": ONES, "post_attention_layernorm": ONES, "model.norm": ONES},
    )


def spec2(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    return plain(
        "olmo2",
        config,
        norms="after",
        qk_norms=("q_norm", "k_norm"),
        qk_norm="whole",
        qkv_bias=biased,
        out_bias=biased,
    )


def spec3(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    sliding = sliding_layers(config, lambda layer: (layer + 1) % 4 != 0)
    full, full_context = make_rope(layer_rope(config, "full_attention", THETA3), shape.head_dim, shape.positions)
    if config.raw("rope_theta") is not None:
        config.number("rope_theta", THETA3, THETA3)  # transformers takes another one for some layers only
    local, local_context = make_rope(layer_rope(config, "sliding_attention", THETA3), shape.head_dim, shape.positions)
    biased = config.flag("attention_bias")
    return DecoderSpec(
        family="olmo3",
        shape=shape,
        context=min(full_context, local_context),
        windows=windows(config, sliding),
        ropes=(full, local),
        layer_ropes=tuple(int(slides) for slides in sliding),
        function=config.choice("hidden_act", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=shape.head_dim**-0.5,
        norms="after",
        qk_norms=("q_norm", "k_norm"),
        qk_norm="whole",
        qkv_bias=biased,
        out_bias=biased,
    )


FAMILY = decoder("OLMo", DEFAULTS, spec, UNUSED)
FAMILY2 = decoder("OLMo 2", DEFAULTS2, spec2, UNUSED)
FAMILY3 = decoder("OLMo 3", DEFAULTS3, spec3, UNUSED)
