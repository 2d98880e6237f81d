"""Which layers have a sliding window: `layer_types` where the config lists them, a family's older rule otherwise."""

from __future__ import annotations

from collections.abc import Callable

from tercet.families.rope import MAX_CONTEXT, named
from tercet.families.settings import Settings

__all__ = ["LAYER_TYPES", "layer_rope", "layers_of", "one_window", "qwen_windows", "sliding_layers", "windows"]

LAYER_TYPES = {"full_attention": False, "sliding_attention": True}


def layers_of(config: Settings) -> int:
    """How many there are."""
    return config.integer("num_hidden_layers", 1, 1024)


def one_window(config: Settings) -> tuple[int, ...]:
    """The same window, or none, for every layer."""
    window = 0 if config.raw("sliding_window") is None else config.integer("sliding_window", 1, MAX_CONTEXT)
    return (window,) * layers_of(config)


def sliding_layers(config: Settings, rule: Callable[[int], bool]) -> tuple[bool, ...]:
    """For each layer, whether it has a window; `rule` decides where layer_types is absent."""
    layers, types = layers_of(config), config.raw("layer_types")
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


def qwen_windows(config: Settings) -> tuple[int, ...]:
    """Qwen's older rule: none unless use_sliding_window, then the layers from max_window_layers on."""
    enabled = config.flag("use_sliding_window") and config.raw("sliding_window") is not None
    first = config.integer("max_window_layers", 0, 1 << 20) if enabled else layers_of(config)
    sliding = sliding_layers(config, lambda layer: layer >= first)
    if any(sliding) and not enabled:
        raise config.error("layer_types", "full_attention only, unless use_sliding_window and sliding_window are set")
    return windows(config, sliding)


def layer_rope(config: Settings, layer_type: str, theta: float, key: str = "rope_theta") -> Settings:
    """RoPE settings of a type of layers, where they differ; the older spelling's scaling is of full ones.

    Args:
        theta: the base where neither spelling says.
        key: the older spelling's word for it.
    """
    parameters = config.part("rope_parameters")
    if not set(parameters) <= LAYER_TYPES.keys():
        raise config.error("rope_parameters", "given for each of " + ", ".join(LAYER_TYPES))
    values = Settings(parameters, {}, "config.json: rope_parameters").part(layer_type)
    if layer_type == "full_attention":
        values.update(config.part("rope_scaling"))
    values.setdefault("rope_theta", theta if config.raw(key) is None else config.raw(key))
    return named(config, values)
