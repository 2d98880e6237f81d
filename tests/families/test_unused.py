"""No key of a config is passed over: it is read, or known to change nothing, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

import tiny
import tiny_towers
from tercet import families
from tercet.errors import ModelError

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}
PUBLISHED: dict[str, dict[str, Any]] = {  # what authors' files hold beside the sizes
    "SmolLM2": {
        "model_type": "llama", "_name_or_path": "x", "is_llama_config": True, "rope_interleaved": False,
        "pretraining_tp": 1, "initializer_range": 0.04, "torch_dtype": "bfloat16", "rope_theta": 100000,
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "use_cache": True, "hidden_act": "silu",
    },
    "Pythia": {
        "model_type": "gpt_neox", "classifier_dropout": 0.1, "rotary_emb_base": 10000, "rotary_pct": 0.25,
        "use_parallel_residual": True, "tie_word_embeddings": False, "initializer_range": 0.02, "hidden_act": "gelu",
    },
    "StarCoder2": {
        "model_type": "starcoder2", "activation_function": "gelu", "attention_softmax_in_fp32": True,
        "embedding_dropout": 0.1, "layer_norm_epsilon": 1e-05, "mlp_type": "default", "norm_epsilon": 1e-05,
        "norm_type": "layer_norm", "scale_attention_softmax_in_fp32": True, "scale_attn_weights": True,
        "sliding_window": 4096, "use_bias": True, "rope_theta": 999999.4420358813,
    },
    "Command R7B": {
        "model_type": "cohere2", "cache_implementation": "hybrid", "head_dim": 16, "layer_switch": 4,
        "logit_scale": 0.25, "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj", "rotary_pct": 1.0, "rope_theta": 50000, "rope_scaling": None,
        "sliding_window": 4096, "sliding_window_pattern": 4, "use_embedding_sharing": True,
        "use_gated_activation": True, "use_parallel_block": True, "use_parallel_embedding": True,
    },
    "Phi-4-mini": {
        "model_type": "phi3", "attention_bias": False, "auto_map": {"AutoConfig": "a.B"}, "full_attn_mod": 1,
        "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
        "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75, "sliding_window": 262144,
        "rope_scaling": {"type": "longrope", "long_factor": [1.0] * 6, "short_factor": [1.0] * 6},
        "max_position_embeddings": 131072,
    },
    "Qwen2.5-Math": {
        "model_type": "qwen2", "max_window_layers": 28, "sliding_window": 4096, "use_sliding_window": False,
        "use_mrope": False, "num_key_value_heads": 2,
    },
    "SmolVLM": {
        "model_type": "smolvlm", "image_token_id": 7, "scale_factor": 4,
        "vision_config": {"tie_word_embeddings": False},
        "text_config": {
            **SHAPE, "model_type": "llama", "_flash_attn_2_enabled": True, "architectures": ["VLlama3ForCausalLM"],
            "is_llama_config": True, "neftune_noise_alpha": 0.0, "pad_token_id": 2, "pixel_shuffle_factor": 4,
            "perceiver_config": {"_name_or_path": "", "top_k": 50}, "qk_layer_norms": False, "use_resampler": False,
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_are_taken(name: str) -> None:
    families.model({**SHAPE, **PUBLISHED[name]})


@pytest.mark.parametrize("family", [*tiny.FAMILIES, *tiny.OTHERS])
def test_what_transformers_itself_writes_is_taken(family: str) -> None:
    """With every default of its class, in both dtypes of flags: a file of save_pretrained."""
    config = CONFIG_MAPPING[family](**{**SHAPE, "num_key_value_heads": 4, "head_dim": 16}).to_dict()
    if family == "phi3":
        config |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    families.model(config)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"sliding_window": 16}, "config.json: sliding_window is 16, and no code here knows it"),
    ("llama", {"residual_multiplier": 0.5}, "residual_multiplier is 0.5"),
    ("llama", {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types is a list"),
    ("llama", {"no_rope_layers": [1, 0]}, "no_rope_layers is a list"),
    (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "alpha": 1000.0}},
        "parameters: alpha is 1000",
    ),
    (
        "mistral",
        {"rope_parameters": {"rope_type": "default", "llama_4_scaling_beta": 0.1}},
        "llama_4_scaling_beta is 0.1",
    ),
    ("qwen3", {"use_qk_norm": True}, "use_qk_norm is True"),
    ("cohere", {"use_qk_norm": True}, "use_qk_norm is True; it must be false"),
    ("stablelm", {"qk_layernorm": True}, "qk_layernorm is True; it must be false"),
    (
        "olmo3",
        {"rope_parameters": None, "rope_theta": 10000.0},
        "rope_theta is 10000.0; it must be a number from 500000",
    ),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSED)
def test_what_nobody_knows_is_refused(family: str, changes: dict[str, Any], message: str) -> None:
    families.model(tiny.config(family))
    with pytest.raises(ModelError) as caught:
        families.model({**tiny.config(family), **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
@pytest.mark.parametrize("part", ["", "text_config", "vision_config"])
def test_towers_too(family: str, part: str) -> None:
    config = tiny_towers.config(family)
    families.model(config)
    (config[part] if part else config)["attention_sinks"] = 4
    with pytest.raises(ModelError, match=f"config.json: {part}{': ' if part else ''}attention_sinks is 4"):
        families.model(config)


def test_ministral_3_ends_where_its_queries_would_grow() -> None:
    rope = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 64}
    config = tiny.config("ministral3", rope_parameters=rope)
    assert families.model(config).text.context == 256
    config["rope_parameters"]["llama_4_scaling_beta"] = 0.1
    assert families.model(config).text.context == 64
