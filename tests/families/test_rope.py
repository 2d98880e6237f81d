"""Frequencies against transformers' own functions, in both spellings of the config, and where the context ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import tiny
from tercet import families
from tercet.errors import ModelError
from tercet.families import gemma3, llama, mistral, phi, qwen2, qwen3
from tercet.program import Rope

SIZES = {
    "hidden_size": 640,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "vocab_size": 64,
}
BASE = {"model_type": "llama", **SIZES, "max_position_embeddings": 8192}  # heads of 80 columns: exponents are inexact
LONG = {
    "rope_type": "longrope",
    "short_factor": np.linspace(1, 2, 40).tolist(),
    "long_factor": np.linspace(1, 40, 40).tolist(),
    "original_max_position_embeddings": 4096,
}
KINDS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "dynamic": {"rope_type": "dynamic", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048},
    "yarn-own-range": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 2048,
        "beta_fast": 20.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "yarn-low-base": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0},  # the ramp ends past the last column
    "yarn-attention": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.7},
    "yarn-mscale": {"rope_type": "yarn", "factor": 40.0, "mscale": 1.5, "mscale_all_dim": 0.7},
    "longrope": LONG,
    "longrope-factor": {**LONG, "factor": 7.0},
    "longrope-attention": {**LONG, "attention_factor": 1.3},
}


def ours(**config: Any) -> tuple[Rope, int]:
    program = families.model({**BASE, **config}).text
    return program.ropes[0], program.context


@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_are_those_of_transformers(kind: str) -> None:
    parameters = {"rope_theta": 500000.0, **KINDS[kind]}
    config = AutoConfig.for_model(**{**BASE, "rope_parameters": dict(parameters)})
    wanted, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config)
    rope, _ = ours(rope_parameters=parameters)
    assert np.abs(rope.inv_freq / wanted.numpy() - 1).max() < 4e-7
    assert rope.factor == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_older_spelling_says_the_same(kind: str) -> None:
    new, context = ours(rope_parameters={"rope_theta": 500000.0, **KINDS[kind]})
    scaling = dict(KINDS[kind])
    for spelled in (scaling, {"type": scaling.pop("rope_type"), **scaling}):
        spelled.setdefault("type", KINDS[kind]["rope_type"])
        old, old_context = ours(rope_theta=500000.0, rope_scaling=spelled)
        assert np.array_equal(old.inv_freq, new.inv_freq)
        assert (old.factor, old_context) == (new.factor, context)


def test_default_frequencies_and_default_theta() -> None:
    rope, context = ours()
    assert np.allclose(rope.inv_freq, 10000.0 ** (-np.arange(0, 80, 2) / 80), rtol=1e-6)
    assert (rope.factor, context) == (1.0, 8192)
    assert np.array_equal(ours(rope_theta=10000)[0].inv_freq, rope.inv_freq)
    assert np.array_equal(ours(rope_scaling=None, rope_parameters={"rope_type": "default"})[0].inv_freq, rope.inv_freq)


def test_absent_keys_mean_what_they_mean_to_transformers() -> None:
    modules = (gemma3, llama, mistral, phi, qwen2, qwen3)
    families_of = ("gemma3_text", "llama", "mistral", "phi", "qwen2", "qwen3")
    for module, family in zip(modules, families_of, strict=True):
        made = AutoConfig.for_model(family)
        known = {key: getattr(type(made), key) for key in module.DEFAULTS if hasattr(type(made), key)}
        assert known == {key: module.DEFAULTS[key] for key in known}
        assert set(module.DEFAULTS) - set(known) <= {"partial_rotary_factor", "sliding_window_pattern"}
        assert bool(module.DEFAULTS.get("tie_word_embeddings")) == made.tie_word_embeddings
    assert phi.DEFAULTS["partial_rotary_factor"] == AutoConfig.for_model("phi").rope_parameters["partial_rotary_factor"]


def test_kinds_that_change_with_the_length_end_where_they_would_change() -> None:
    assert ours(rope_parameters={"rope_theta": 1e4, **KINDS["dynamic"]})[1] == 8192
    assert ours(rope_parameters={"rope_theta": 1e4, **LONG})[1] == 4096
    outer = ours(rope_theta=1e4, rope_scaling=LONG, original_max_position_embeddings=2048)
    assert outer[1] == 2048  # the outer value wins, as in transformers


def test_gemma3_in_the_older_spelling() -> None:
    new = tiny.config(
        "gemma3_text",
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 7000.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 90000.0},
        },
    )
    old = {key: value for key, value in new.items() if key != "rope_parameters"}
    old |= {"rope_theta": 90000.0, "rope_local_base_freq": 7000.0}
    old |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    pairs = zip(families.model(old).text.ropes, families.model(new).text.ropes, strict=True)
    assert all(np.array_equal(a.inv_freq, b.inv_freq) for a, b in pairs)
    made = AutoConfig.for_model(**{**old, "rope_scaling": dict(old["rope_scaling"])})
    assert made.rope_parameters == new["rope_parameters"]  # and transformers reads it the same way


def test_gemma3_layers_by_pattern() -> None:
    config = tiny.config("gemma3_text", num_hidden_layers=7, layer_types=None)
    explicit = config.pop("layer_types")
    program = families.model({**config, "sliding_window_pattern": 6}).text
    windows = [op.window for op in program.ops if op.kind == "attention"]
    assert windows == [tiny.WINDOW if kind == "sliding_attention" else 0 for kind in explicit]
    assert [op.rope for op in program.ops if op.kind == "rope"][::2] == [1, 1, 1, 1, 1, 0, 1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rope_type": "mrope"}, "'mrope'; it must be one of default, linear, dynamic, llama3, yarn, longrope"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"rope_type": "linear"}, "has no factor"),
        ({"rope_type": "linear", "factor": 0.0}, "factor is 0.0"),
        ({"rope_type": "default", "rope_theta": float("nan")}, "rope_theta is nan"),
        ({"rope_type": "default", "rope_theta": "1e4"}, "rope_theta is '1e4'"),
        ({**KINDS["llama3"], "high_freq_factor": 1.0}, "more than low_freq_factor"),
        ({**LONG, "short_factor": [1.0] * 39}, "short_factor is a list; it must be a list of 40 numbers"),
        ({**LONG, "short_factor": [1.0] * 39 + [float("inf")]}, "short_factor: 39 is inf"),
    ],
)
def test_what_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=r"config\.json: rope_parameters") as caught:
        ours(rope_parameters=parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
