"""Real configs, as their authors published them, give programs of exactly the published number of parameters; wrong
configs give one clear error, quickly."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from tercet import families
from tercet.errors import ModelError
from tercet.program import Program


def sizes(width: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int, positions: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": positions,
    }


PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "SmolLM2-135M": (
        134_515_008,
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            **sizes(576, 1536, 30, 9, 3, 49152, 8192),
            "rope_theta": 100000,
            "rope_scaling": None,
            "rms_norm_eps": 1e-05,
            "tie_word_embeddings": True,
        },
    ),
    "Llama-3.2-1B": (
        1_235_814_400,
        {
            "model_type": "llama",
            **sizes(2048, 8192, 16, 32, 8, 128256, 131072),
            "head_dim": 64,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 8192,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": True,
        },
    ),
    "Mistral-7B-v0.1": (
        7_241_732_096,
        {"model_type": "mistral", **sizes(4096, 14336, 32, 32, 8, 32000, 32768), "sliding_window": 4096},
    ),
    "Qwen2.5-0.5B": (
        494_032_768,
        {
            "model_type": "qwen2",
            **sizes(896, 4864, 24, 14, 2, 151936, 32768),
            "rope_theta": 1000000.0,
            "sliding_window": 32768,
            "max_window_layers": 24,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen3-0.6B": (
        596_049_920,
        {
            "model_type": "qwen3",
            **sizes(1024, 3072, 28, 16, 8, 151936, 40960),
            "head_dim": 128,
            "attention_bias": False,
            "sliding_window": None,
            "tie_word_embeddings": True,
        },
    ),
    "gemma-3-1b": (
        999_885_952,
        {
            "model_type": "gemma3_text",
            **sizes(1152, 6912, 26, 4, 1, 262144, 32768),
            "head_dim": 256,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "rope_local_base_freq": 10000,
            "rope_theta": 1000000,
            "rope_scaling": None,
            "sliding_window": 512,
            "sliding_window_pattern": 6,
        },
    ),
    "phi-2": (
        2_779_683_840,
        {
            "model_type": "phi",
            **sizes(2560, 10240, 32, 32, 32, 51200, 2048),
            "partial_rotary_factor": 0.4,
            "qk_layernorm": False,
            "rope_theta": 10000.0,
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    count, config = PUBLISHED[name]
    program = families.model(config).text
    assert sum(math.prod(weight.shape) for weight in program.weights.values()) == count
    assert program.context == config["max_position_embeddings"]
    check(program)


def check(program: Program) -> None:
    """What every reader relies on."""
    widths = program.widths
    written = {"ids"}
    for op in program.ops:
        assert set(op.inputs) <= written, "read before it is written"
        written.add(op.output)
        if op.kind in ("linear", "embed"):
            rows, columns = program.weights[op.weight].shape
            output, inner = (columns, None) if op.kind == "embed" else (rows, columns)
            assert output == widths[op.output]
            assert inner is None or inner == widths[op.inputs[0]]
            assert op.output not in op.inputs
        if op.kind in ("add", "gated", "rope", "activation", "rmsnorm", "layernorm"):
            assert {widths[name] for name in op.inputs} == {widths[op.output]}
        if op.kind == "attention":
            assert [widths[name] for name in op.inputs] == [
                count * op.head_dim for count in (op.heads, op.kv_heads, op.kv_heads)
            ]
        if op.bias:
            assert program.weights[op.bias].shape == (widths[op.output] if op.kind == "linear" else op.dim,)
    assert program.ops[-1].output == "logits"
    assert sorted(name for block in program.blocks for name in block) == sorted(program.linears)
    assert [op.layer for op in program.ops if op.kind == "attention"] == list(range(len(program.blocks)))
    assert all(np.isfinite(rope.inv_freq).all() and math.isfinite(rope.factor) for rope in program.ropes)


def test_blocks_name_their_linears_in_order_of_use() -> None:
    program = families.model(tiny.config("llama")).text
    names = [f"self_attn.{part}_proj" for part in "qkvo"] + [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    assert program.blocks[1] == tuple(f"model.layers.1.{name}.weight" for name in names)
    assert next(iter(program.weights)) == "model.embed_tokens.weight"
    assert program.ops[-1].weight == "model.embed_tokens.weight"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "llama",
        {"model_type": "bert"},
        "model_type is 'bert'; it must be a supported one, such as llama, mistral, qwen2",
    ),
    (
        "llama",
        {"model_type": "gemma2"},
        "model_type is 'gemma2'; it must be a supported one, such as gemma3_text, gemma, gemma3",
    ),
    ("llama", {"model_type": "mixtral"}, "model_type is 'mixtral'; it must be a supported one, such as mistral, "),
    ("llama", {"model_type": None}, "model_type is null"),
    ("llama", {"model_type": ["llama"]}, "model_type is a list"),
    ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is set, but capped"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is set, but capped"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "only causal"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "give the original model"),
    ("qwen3", {"num_experts": 8}, "mixtures of experts"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "one that ends with ForCausalLM"),
    ("llama", {"hidden_act": "relu2"}, "hidden_act is 'relu2'; it must be one of silu"),
    ("llama", {"hidden_size": 63, "head_dim": None}, "hidden_size is 63; it must be a multiple of num_attention_heads"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads is 3; it must be a divisor"),
    ("llama", {"head_dim": 15}, "must be even"),
    ("llama", {"head_dim": 1024, "num_attention_heads": 1024}, "1024 heads of 1024 columns"),
    ("qwen3", {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "differ by layer type"),
    (
        "gemma3_text",
        {"rope_parameters": {"rope_type": "linear", "factor": 8.0}},
        "for each of full_attention, sli",
    ),
    ("llama", {"num_hidden_layers": 1 << 29}, "num_hidden_layers is 536870912; it must be a whole number from 1 to"),
    ("llama", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ("llama", {"num_hidden_layers": 2.0}, "num_hidden_layers is 2.0"),
    ("llama", {"num_hidden_layers": True}, "num_hidden_layers is True"),
    ("llama", {"hidden_size": "64"}, "hidden_size is '64'"),
    ("llama", {"hidden_size": 10**5000}, "hidden_size is a huge number"),
    ("llama", {"vocab_size": -5}, "vocab_size is -5"),
    ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'; it must be true or false"),
    ("llama", {"rope_parameters": [1]}, "rope_parameters is a list; it must be an object"),
    ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types is a list; it must be a list of num_hidden_layers (2)"),
    ("qwen2", {"layer_types": ["full_attention", "linear_attention"]}, "layer_types: 1 is 'linear_attention'"),
    (
        "qwen2",
        {"use_sliding_window": False, "layer_types": ["full_attention", "sliding_attention"]},
        "full_attention only",
    ),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSED)
def test_refused_with_one_clear_line(family: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        families.model({**tiny.config(family), **changes})
    assert message in str(caught.value)
    assert str(caught.value).startswith("config.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"])
def test_a_missing_size_is_named(key: str) -> None:
    config = tiny.config("llama")
    del config[key]
    with pytest.raises(ModelError, match=f"config.json has no {key}"):
        families.model(config)


@pytest.mark.parametrize("config", [None, [], "llama", 3, {}])
def test_not_a_config_at_all(config: Any) -> None:
    with pytest.raises(ModelError):
        families.model(config)


def test_families_and_interpreter_import_no_torch() -> None:
    code = "import sys, tercet.families, tercet.program.interpreter; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_supported_names_every_family() -> None:
    decoders = [name for name, family in families.FAMILIES.items() if family.architecture == "ForCausalLM"]
    texts = ["qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text"]  # of multimodal models
    assert sorted(decoders) == sorted([*tiny.FAMILIES, *tiny.OTHERS, *texts])
    assert all(family.title for family in families.FAMILIES.values())


CONFIGS = {
    **{family: tiny.config(family) for family in (*tiny.FAMILIES, *tiny.OTHERS)},
    **{name: config for name, (_, config) in PUBLISHED.items()},
    "transforms": {**tiny.config("llama"), "tercet": {"rotate": 32, "clip": 100.0, "blocks": [0, 1]}},
    "yarn": tiny.config(
        "llama", rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    ),
    "longrope": tiny.config(
        "llama",
        rope_parameters={
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [2.0] * 8,
            "original_max_position_embeddings": 64,
        },
    ),
}
HOSTILE = st.one_of(
    st.sampled_from([None, True, False, -1, 0, 1, 2, 3, 1 << 29, 1 << 63, -(1 << 63), 10**400, "", "llama", [], {}]),
    st.sampled_from(
        [0.0, -0.0, 0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf, "NaN", [[]], {"": None}, [None] * 3]
    ),
    st.sampled_from(["linear", "dynamic", "llama3", "yarn", "longrope", "relu", "full_attention", "x" * 500]),
    st.integers(),
    st.floats(),
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=5
    ),
    st.dictionaries(
        st.sampled_from(["rope_type", "type", "factor", "rope_theta"]), st.floats() | st.none(), max_size=3
    ),
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a config, nested ones too."""
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), st.data())
def test_mutated_configs_raise_only_model_errors(name: str, data: st.DataObject) -> None:
    config = copy.deepcopy(CONFIGS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(config))))
        if data.draw(st.booleans()) or not isinstance(container, dict):
            container[key] = copy.deepcopy(data.draw(HOSTILE))  # the samples are shared
        else:
            del container[key]
    try:
        check(families.model(config).text)
    except ModelError as error:
        message = str(error)
        if "\n" in message or len(message) > 300:
            pytest.fail(f"not one short line: {message}")


def test_huge_sizes_allocate_little() -> None:
    tracemalloc.start()
    try:
        for family in tiny.FAMILIES:
            for key in [key for key, value in tiny.config(family).items() if type(value) is int]:
                for value in (1 << 20, 1 << 29, 10**400):
                    config = {**tiny.config(family), key: value}
                    try:
                        families.model(config)
                    except ModelError:
                        continue
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
