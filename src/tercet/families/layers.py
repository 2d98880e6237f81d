"""Which layers have a sliding window: `layer_types` where the config lists them, a family's older rule otherwise."""

from __future__ import annotations

from collections.abc import Callable

from tercet.families.rope import MAX_CONTEXT
from tercet.families.settings import Settings

__all__ = ["LAYER_TYPES", "qwen_windows", "sliding_layers", "windows"]

LAYER_TYPES = {"full_attention": False, "sliding_attention": True}


def sliding_layers(config: Settings, layers: int, rule: Callable[[int], bool]) -> tuple[bool, ...]:
    """For each layer, whether it has a window; `rule` decides where layer_types is absent."""
    types = config.raw("layer_types")
    if types is None:
        return tuple(rule(layer) for layer in range(layers))
    if not isinstance(types, list) or len(types) != layers:
        raise config.error("layer_types", f"a list of num_hidden_layers ({layers}) names")
    named = Settings({str(layer): kind for layer, kind in enumerate(types)}, {}, "config.json: layer_types")
    return tuple(named.choice(str(layer), LAYER_TYPES) for layer in range(layers))


def windows(config: Settings, sliding: tuple[bool, ...]) -> tuple[int, ...]:
    """For each layer, the keys a token sees, itself included; 0 where it sees all before it."""
    size = config.integer("sliding_window", 1, MAX_CONTEXT) if any(sliding) else 0
    return tuple(size if slides else 0 for slides in sliding)


def qwen_windows(config: Settings, layers: int) -> tuple[int, ...]:
    """Qwen's older rule: none unless use_sliding_window, then the layers from max_window_layers on."""
    enabled = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    first = config.integer("max_window_layers", 0, 1 << 20) if enabled else layers
    sliding = sliding_layers(config, layers, lambda layer: layer >= first)
    if any(sliding) and not enabled:
        raise config.error("layer_types", "full_attention only, unless use_sliding_window and sliding_window are set")
    return windows(config, sliding)
