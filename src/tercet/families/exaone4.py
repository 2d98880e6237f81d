"""EXAONE 4: norms after attention and MLP, and on each query and key head. Where some layers have a window, the others
have no RoPE."""

from __future__ import annotations

from collections.abc import Callable

from tercet.families.decoder import decoder
from tercet.families.layers import sliding_layers, windows
from tercet.families.settings import Settings
from tercet.families.spec import NO_ROPE, DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
}
UNUSED = ("sliding_window_pattern",)


def spec(config: Settings) -> DecoderSpec:
    hybrid = config.raw("sliding_window") is not None
    sliding = sliding_layers(config, _rule(config) if hybrid else lambda _: False)
    if any(sliding) and not hybrid:
        raise config.error("layer_types", "full_attention only, unless sliding_window is set")
    return plain(
        "exaone4",
        config,
        windows=windows(config, sliding),
        layer_ropes=tuple(0 if slides or not hybrid else NO_ROPE for slides in sliding),
        norms="after",
        qk_norms=("q_norm", "k_norm"),
    )


def _rule(config: Settings) -> Callable[[int], bool]:
    """Every n-th layer is a full one; for a pattern in letters, transformers wants layer_types."""
    period = config.integer("sliding_window_pattern", 1, 1 << 20)
    return lambda layer: (layer + 1) % period != 0


FAMILY = decoder("EXAONE 4", DEFAULTS, spec, UNUSED)
