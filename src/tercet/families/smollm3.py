"""SmolLM3: Llama without RoPE in every fourth layer, or in those that no_rope_layers has as 0."""

from __future__ import annotations

from tercet.families.decoder import decoder
from tercet.families.layers import layers_of, sliding_layers, windows
from tercet.families.settings import Settings
from tercet.families.spec import NO_ROPE, DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 4,
    "rope_theta": 2000000.0,
    "no_rope_layer_interval": 4,
    "tie_word_embeddings": True,
}
UNUSED = ("max_window_layers", "sliding_window", "no_rope_layer_interval")


def spec(config: Settings) -> DecoderSpec:
    rotated = _rotated(config)
    enabled = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    sliding = sliding_layers(config, lambda layer: enabled and not rotated[layer])
    if any(sliding) and not enabled:
        raise config.error("layer_types", "full_attention only, unless use_sliding_window and sliding_window are set")
    biased = config.flag("attention_bias")
    return plain(
        "smollm3",
        config,
        windows=windows(config, sliding),
        layer_ropes=tuple(0 if rotates else NO_ROPE for rotates in rotated),
        qkv_bias=biased,
        out_bias=biased,
        mlp_bias=config.flag("mlp_bias"),
    )


def _rotated(config: Settings) -> tuple[bool, ...]:
    layers = layers_of(config)
    if config.raw("no_rope_layers") is None:
        interval = config.integer("no_rope_layer_interval", 1, 1 << 20)
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    return tuple(bool(each) for each in config.numbers("no_rope_layers", layers, 0, 1))


FAMILY = decoder("SmolLM3", DEFAULTS, spec, UNUSED)
