"""Our program, run by the interpreter, against transformers: every family, every config feature that has a switch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tiny
from tercet import families
from tercet.program import interpreter

SCALED = {"rope_theta": 10000.0, "factor": 4.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
GEMMA_LINEAR = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
    "full_attention": {"rope_type": "linear", "rope_theta": 50000.0, "factor": 8.0},
}
EIGHT = np.linspace(1.0, 3.0, 8).tolist()
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in (*tiny.FAMILIES, *tiny.OTHERS)},
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-mlp-bias": ("llama", {"mlp_bias": True}),
    "llama-untied": ("llama", {"tie_word_embeddings": False}),
    "llama-head-dim": ("llama", {"head_dim": 32}),
    "llama-no-gqa": ("llama", {"num_key_value_heads": 4}),
    "llama-one-kv-head": ("llama", {"num_key_value_heads": 1}),
    "llama-eps": ("llama", {"rms_norm_eps": 0.03}),
    "llama-gelu": ("llama", {"hidden_act": "gelu"}),
    "llama-theta": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", **SCALED}}),
    "llama-dynamic": ("llama", {"rope_parameters": {"rope_type": "dynamic", **SCALED}}),
    "llama-llama3": ("llama", {"rope_parameters": {"rope_type": "llama3", **SCALED, **LLAMA3}}),
    "llama-yarn": (
        "llama",
        {"rope_parameters": {"rope_type": "yarn", **SCALED, "original_max_position_embeddings": 64}},
    ),
    "llama-longrope": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": EIGHT,
                "long_factor": [9.0] * 8,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "mistral-no-window": ("mistral", {"sliding_window": None}),
    "qwen2-no-window": ("qwen2", {"use_sliding_window": False}),
    "qwen2-layer-types": ("qwen2", {"layer_types": ["sliding_attention", "full_attention"]}),
    "qwen2-head-dim": ("qwen2", {"head_dim": 32}),
    "qwen3-biases": ("qwen3", {"attention_bias": True}),
    "qwen3-window": ("qwen3", {"use_sliding_window": True, "sliding_window": tiny.WINDOW, "max_window_layers": 0}),
    "gemma3-biases": ("gemma3_text", {"attention_bias": True}),
    "gemma3-untied": ("gemma3_text", {"tie_word_embeddings": False}),
    "gemma3-linear": ("gemma3_text", {"rope_parameters": GEMMA_LINEAR}),
    "phi-qk-norm": ("phi", {"qk_layernorm": True}),
    "phi-gqa": ("phi", {"num_key_value_heads": 2}),
    "phi-whole-heads": ("phi", {"partial_rotary_factor": 1.0}),
    "phi-quarter": ("phi", {"partial_rotary_factor": 0.25}),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str) -> None:
    family, overrides = CASES[case]
    made, config, tensors = tiny.model(family, **overrides)
    ids = tiny.ids()
    wanted = tiny.reference(made, ids)
    assert wanted.std() >= 1
    assert tiny.peak(made, ids) > 0.5  # uniform attention over a window would give 0.125
    assert len(ids) > 4 * tiny.WINDOW

    program = families.model(config).text
    assert {name: weight.shape for name, weight in program.weights.items()} == {n: t.shape for n, t in tensors.items()}
    error = np.abs(interpreter.logits(program, tensors, ids) - wanted).max() / np.abs(wanted).max()
    assert error < 2e-5  # the exact and the tanh GELU differ by 7e-4


def test_a_long_sequence_keeps_the_angles_exact() -> None:
    """At position 1000 a frequency one rounding off would show."""
    made, config, tensors = tiny.model("llama", max_position_embeddings=2048, head_dim=80)
    ids = tiny.ids(1100)
    wanted = tiny.reference(made, ids)[-50:]
    found = interpreter.logits(families.model(config).text, tensors, ids)[-50:]
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-4
