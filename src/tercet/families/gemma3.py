"""Gemma 3 (text): sandwich norms with weights stored minus one, q/k norms, two RoPE bases, a scaled embedding.

Layers with a sliding window use the local base, the others the global one, whose scaling is `rope_scaling` in the older
spelling. The embedding's factor is sqrt(hidden) in the dtype of the weights: float32 here, as in a float32 teacher.
"""

from __future__ import annotations

import numpy as np

from tercet.families.decoder import decoder
from tercet.families.layers import layer_rope, sliding_layers, windows
from tercet.families.rope import make_rope
from tercet.families.settings import Settings
from tercet.families.spec import ACTIVATIONS, DecoderSpec, read_shape

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "sliding_window_pattern": 6,
    "tie_word_embeddings": True,
}
UNUSED = ("sliding_window", "query_pre_attn_scalar")


def spec(config: Settings) -> DecoderSpec:
    shape = read_shape(config)
    pattern = config.integer("sliding_window_pattern", 1, 1 << 20)
    sliding = sliding_layers(config, lambda layer: (layer + 1) % pattern != 0)
    full, full_context = make_rope(layer_rope(config, "full_attention", 1000000.0), shape.head_dim, shape.positions)
    local, local_context = make_rope(
        layer_rope(config, "sliding_attention", 10000.0, "rope_local_base_freq"), shape.head_dim, shape.positions
    )
    biased = config.flag("attention_bias")
    return DecoderSpec(
        family="gemma3_text",
        shape=shape,
        context=min(full_context, local_context),
        windows=windows(config, sliding),
        ropes=(full, local),
        layer_ropes=tuple(int(slides) for slides in sliding),
        function=config.choice("hidden_activation", ACTIVATIONS),
        eps=config.number("rms_norm_eps", 0, 1),
        tied=config.flag("tie_word_embeddings"),
        attention_factor=config.number("query_pre_attn_scalar", 1e-3, 1e6) ** -0.5,
        embedding_factor=float(np.sqrt(np.float32(shape.width))),
        norm_offset=1.0,
        qk_norms=("q_norm", "k_norm"),
        norms="both",
        qkv_bias=biased,
        out_bias=biased,
    )


FAMILY = decoder("Gemma 3, text only", DEFAULTS, spec, UNUSED)
