"""Tiny random models of every family, made in memory by transformers itself: what all parity tests compare with.

Default initialisation hides bugs: attention is nearly uniform, logits are nearly zero, norms are the identity. So all
weights are drawn again: scores q.k have a standard deviation of about 4 (attention is peaked), norms and biases are
random, logits have a standard deviation above 1. Shapes are awkward on purpose: a vocabulary that is no multiple of 16,
grouped KV heads, a head size that is not hidden/heads where the family allows one, a window shorter than the sequences.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tercet import families
from tercet.sources.views import views

__all__ = [
    "FAMILIES", "OTHERS", "WINDOW", "config", "draw", "ids", "model", "peak", "reference", "save_folder", "tokenizer",
]  # fmt: skip

WINDOW = 8
SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"head_dim": 32, "sliding_window": WINDOW},
    "qwen2": {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    "qwen3": {"head_dim": 32, "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "sliding_window": WINDOW,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
        },
    },
    "phi": {"num_key_value_heads": 4, "hidden_size": 128, "intermediate_size": 192, "partial_rotary_factor": 0.5},
}
PAIRS = {"num_key_value_heads": 4, "hidden_size": 128, "intermediate_size": 192}
OTHERS: dict[str, dict[str, Any]] = {
    "cohere": {"logit_scale": 0.5},
    "cohere2": {"logit_scale": 0.5, "sliding_window": WINDOW, "sliding_window_pattern": 2},
    "ernie4_5": {"head_dim": 32},
    "exaone4": {"sliding_window": WINDOW, "sliding_window_pattern": 2},
    "gemma": {"head_dim": 32},
    "glm": {"head_dim": 32},
    "glm4": {"head_dim": 32},
    "gpt_neox": PAIRS,
    "granite": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.4,
        "logits_scaling": 0.5,
        "tie_word_embeddings": True,
    },
    "helium": {"head_dim": 16},
    "hunyuan_v1_dense": {
        "head_dim": 32,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 1.0, "alpha": 1000.0},
    },
    "internlm3": {"head_dim": 32, "attention_bias": True, "mlp_bias": True},
    "ministral": {"head_dim": 32, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "ministral3": {"head_dim": 32},
    "olmo": {"clip_qkv": 4.0},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {"partial_rotary_factor": 0.75, "original_max_position_embeddings": 256},
    "seed_oss": {"head_dim": 32},
    "smollm3": {"no_rope_layers": [1, 0]},
    "stablelm": {**PAIRS, "use_qkv_bias": True},
    "starcoder2": {"sliding_window": WINDOW},
}


def config(family: str, **overrides: Any) -> dict[str, Any]:
    """What config.json of such a model holds; `overrides` are transformers' names, such as attention_bias=True."""
    made = AutoConfig.for_model(family, **{**SHAPE, **{**FAMILIES, **OTHERS}[family], **overrides})
    made.architectures = [AutoModelForCausalLM._model_mapping[type(made)].__name__]
    return json.loads(json.dumps(made.to_dict()))


def model(
    family: str, seed: int = 0, **overrides: Any
) -> tuple[PreTrainedModel, dict[str, Any], dict[str, NDArray[np.float32]]]:
    """The transformers model (float32, eval, eager attention), its config dict, its tensors by our names."""
    settings = config(family, **overrides)
    made = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**settings), attn_implementation="eager", dtype=torch.float32
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(draw(name, parameter, family, generator))
    state = {name: value.numpy().copy() for name, value in made.state_dict().items()}
    return made.eval(), settings, dict(views(families.model(settings), state))


SHARP = ("q_proj", "k_proj", "qkv_proj", "query_key_value", "embed", "lm_head")


def draw(name: str, like: torch.Tensor, family: str, generator: torch.Generator) -> torch.Tensor:
    if like.dim() == 2:
        noise = torch.randn(like.shape, generator=generator)
        gain = 2.0 if any(part in name for part in SHARP) else 1.0
        return noise * (gain * like.shape[1] ** -0.5)
    if name.endswith("bias"):
        return torch.randn(like.shape, generator=generator) * 0.3
    low = (
        1.4
        if any(part in name for part in ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_lay", "key_lay"))
        else 0.5
    )
    return low + torch.rand(like.shape, generator=generator) - (1.0 if family.startswith("gemma") else 0.0)


def ids(count: int = 40, vocab: int = SHAPE["vocab_size"], seed: int = 0) -> NDArray[np.int64]:
    """`count` random token ids, the same for the same seed; five times the window by default."""
    return np.random.default_rng(seed).integers(0, vocab, count)


def reference(made: PreTrainedModel, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[n, vocab]: transformers' own logits of one sequence."""
    with torch.no_grad():
        return made(torch.from_numpy(tokens)[None], use_cache=False).logits[0].float().numpy()


def peak(made: PreTrainedModel, tokens: NDArray[np.int64]) -> float:
    """The largest attention weight of a token, averaged over layers, heads and the tokens after the first window."""
    with torch.no_grad():
        layers = made(torch.from_numpy(tokens)[None], use_cache=False, output_attentions=True).attentions
    return float(torch.stack([layer[0, :, WINDOW:].max(-1).values.mean() for layer in layers]).mean())


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = "the ternary weights of a small model are minus one, zero and plus one; the rest is scale and shift. "


def tokenizer(vocab: int = SHAPE["vocab_size"]) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `vocab` tokens, trained in memory; SPECIAL are its first three."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([TEXT * 4], trainer)
    return made


def save_folder(path: Path, family: str = "llama", **overrides: Any) -> Path:
    """A folder as transformers writes it: config.json, model.safetensors, tokenizer.json and its config. Returns it."""
    made, _, _ = model(family, **overrides)
    made.save_pretrained(path)
    tokenizer(made.config.vocab_size).save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[0],
        "eos_token": SPECIAL[2],
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": made.config.max_position_embeddings,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path
