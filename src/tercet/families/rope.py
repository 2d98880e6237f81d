"""Rotary embeddings: a config's words, in either spelling, to `Rope` frequencies.

    transformers 4: rope_theta, rope_scaling {rope_type | type, factor ...}, partial_rotary_factor
    transformers 5: rope_parameters {rope_theta, rope_type, factor ..., partial_rotary_factor}

    default   f_i = theta^(-2i/d)                                   i = 0 .. d/2-1, d = rotary columns of a head
    linear    f_i / factor
    llama3    long waves / factor, short ones kept, a linear blend between    (Llama 3.1)
    yarn      the same with a ramp over i, cos and sin times 0.1 ln(factor) + 1   (arXiv 2309.00071)
    longrope  f_i / short_factor_i, cos and sin times sqrt(1 + ln(factor)/ln(original))   (arXiv 2402.13753)
    dynamic   f_i, until the sequence is longer than the model was made for

A program has one set of frequencies, and rotated keys stay in the cache; so the two kinds that change them with the
length of the sequence keep their first set, and `context` ends where transformers would switch: at
max_position_embeddings (dynamic), at original_max_position_embeddings (longrope). Up to there the result is the same.

Powers are float64, of exponents rounded to float32 as torch rounds them: at position 4000 the difference would show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet.errors import ModelError
from tercet.families.settings import Settings
from tercet.program import Rope

__all__ = ["MAX_CONTEXT", "make_rope", "named", "parameters"]

# Some kinds read these and others do not, as in transformers; M-RoPE is plain RoPE for text.
UNUSED = (
    "type", "factor", "original_max_position_embeddings", "max_position_embeddings", "beta_fast", "beta_slow", "mscale",
    "mscale_all_dim", "attention_factor", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor",
    "truncate", "mrope_section", "mrope_interleaved",
)  # fmt: skip
MAX_CONTEXT = 1 << 24  # positions are float32 in the angle: exact up to here
Frequencies = NDArray[np.float32]


def parameters(config: Settings, absent: Mapping[str, Any] = MappingProxyType({})) -> Settings:
    """The RoPE settings of a model that has one kind for all layers, whichever way they are spelled; `absent` holds
    what is taken where the config does not say."""
    older, newer = config.part("rope_scaling"), config.part("rope_parameters")
    values = older or newer
    if "full_attention" in values or "sliding_attention" in values:
        raise ModelError("config.json: rope_parameters differ by layer type, which this family does not support")
    for key in ("rope_theta", "partial_rotary_factor"):
        if config.raw(key) is not None:
            values.setdefault(key, config.raw(key))
    original = "original_max_position_embeddings"
    if config.raw(original) is not None:  # here the outer one wins, as in transformers
        values[original] = config.raw(original)
    return named(config, {**absent, **values})


def named(config: Settings, values: dict[str, Any]) -> Settings:
    """Completed RoPE settings; older files say "type" for "rope_type"."""
    defaults = {"rope_theta": 10000.0, "rope_type": values.get("type", "default")}
    return config.within(values, defaults, "rope_parameters", UNUSED)


def make_rope(settings: Settings, head_dim: int, max_positions: int, *, partial: bool = False) -> tuple[Rope, int]:
    """Frequencies, and the longest sequence they hold for.

    Args:
        settings: from `parameters`.
        head_dim: columns of a head.
        max_positions: the config's max_position_embeddings.
        partial: whether the family rotates a part of each head; in the others partial_rotary_factor must be 1.

    Raises ModelError for an unknown kind, and for numbers that give no usable frequencies.
    """
    fraction = 1.0 if settings.raw("partial_rotary_factor") is None else settings.number("partial_rotary_factor", 0, 1)
    dim = int(head_dim * fraction)
    if fraction != 1 and not partial:
        raise settings.error("partial_rotary_factor", "1 in this family, which rotates whole heads")
    if dim < 2 or dim % 2:
        raise ModelError(
            f"config.json: RoPE rotates {dim} of {head_dim} columns of a head; it needs an even number >= 2"
        )
    kind = settings.choice("rope_type", KINDS)
    theta = np.float32(settings.number("rope_theta", 1.001, 1e30))
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    powers = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    inv_freq, factor, context = kind(settings, powers, max_positions)
    if not np.isfinite(inv_freq).all() or not 0 < factor < math.inf:
        raise ModelError(
            "config.json: RoPE settings give frequencies that are not finite; check rope_theta and factors"
        )
    return Rope(inv_freq.astype(np.float32), factor), context


def _default(_: Settings, powers: Frequencies, positions: int) -> tuple[Frequencies, float, int]:
    return np.float32(1) / powers, 1.0, positions


def _linear(settings: Settings, powers: Frequencies, positions: int) -> tuple[Frequencies, float, int]:
    return np.float32(1) / powers / np.float32(_factor(settings)), 1.0, positions


def _llama3(settings: Settings, powers: Frequencies, positions: int) -> tuple[Frequencies, float, int]:
    factor, original = _factor(settings), _original(settings, positions)
    low = settings.number("low_freq_factor", 1e-6, 1e6)
    high = settings.number("high_freq_factor", 1e-6, 1e6)
    if high <= low:
        raise settings.error("high_freq_factor", f"more than low_freq_factor ({low:g})")
    inv_freq = np.float64(1) / powers
    turns = original * inv_freq / (2 * math.pi)  # full turns within the original context
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 0: long waves, 1: short ones
    return ((1 - blend) * inv_freq / factor + blend * inv_freq).astype(np.float32), 1.0, positions


def _yarn(settings: Settings, powers: Frequencies, positions: int) -> tuple[Frequencies, float, int]:
    original = _original(settings, positions)
    factor = positions / original if settings.raw("factor") is None else _factor(settings)
    fast, slow = _optional(settings, "beta_fast", 32.0), _optional(settings, "beta_slow", 1.0)
    theta, dim = settings.number("rope_theta", 1.001, 1e30), 2 * powers.size

    def column(turns: float) -> float:  # where the wave makes `turns` full turns within the original context
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = column(fast), column(slow)
    if settings.raw("truncate") is None or settings.flag("truncate"):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    inv_freq = ramp / (factor * powers) + (1 - ramp) / powers
    return inv_freq.astype(np.float32), _yarn_attention(settings, factor), positions


def _yarn_attention(settings: Settings, factor: float) -> float:
    if settings.raw("attention_factor") is not None:
        return settings.number("attention_factor", 1e-3, 1e3)

    def mscale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    if settings.raw("mscale") and settings.raw("mscale_all_dim"):
        above, below = settings.number("mscale", 0, 1e3), settings.number("mscale_all_dim", 0, 1e3)
        return mscale(above) / mscale(below)
    return mscale(1.0)


def _longrope(settings: Settings, powers: Frequencies, positions: int) -> tuple[Frequencies, float, int]:
    original = _original(settings, positions)
    short = settings.numbers("short_factor", powers.size, 1e-6, 1e6)
    factor = positions / original if settings.raw("factor") is None else _factor(settings)
    if settings.raw("attention_factor") is not None:
        attention = settings.number("attention_factor", 1e-3, 1e3)
    else:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return np.float32(1) / (np.array(short, np.float32) * powers), attention, min(positions, original)


def _factor(settings: Settings) -> float:
    return settings.number("factor", 1e-3, 1e6)


def _original(settings: Settings, positions: int) -> int:
    if settings.raw("original_max_position_embeddings") is None:
        return positions
    return settings.integer("original_max_position_embeddings", 2, MAX_CONTEXT)


def _optional(settings: Settings, key: str, default: float) -> float:
    return settings.number(key, 1e-6, 1e6) if settings.raw(key) else default


KINDS: dict[str, Callable[[Settings, Frequencies, int], tuple[Frequencies, float, int]]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _default,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
