"""Gemma 1: Llama with norms stored minus one, a scaled embedding, and a GELU that the first configs
call by another name."""

from __future__ import annotations

import numpy as np

from tercet.families.decoder import decoder
from tercet.families.settings import Settings
from tercet.families.spec import ACTIVATIONS, DecoderSpec, plain

__all__ = ["FAMILY"]

DEFAULTS = {
    "hidden_act": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "tie_word_embeddings": True,
}
NAMES = {**ACTIVATIONS, "gelu": ACTIVATIONS["gelu_pytorch_tanh"]}  # what the first configs say, and do not mean


def spec(config: Settings) -> DecoderSpec:
    biased = config.flag("attention_bias")
    return plain(
        "gemma",
        config,
        function=config.choice("hidden_act", NAMES),
        embedding_factor=float(np.sqrt(np.float32(config.integer("hidden_size", 2, 1 << 17)))),
        norm_offset=1.0,
        qkv_bias=biased,
        out_bias=biased,
    )


FAMILY = decoder("Gemma 1", DEFAULTS, spec, unused=("hidden_activation",))
