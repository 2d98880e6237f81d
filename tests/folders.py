"""A tiny Llama as a model folder: every stored format, every kind of tail, small enough for ten thousand mutants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import weights
from tercet import artifact
from tercet.packing import PackedTensor, pack

MODEL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 40, "hidden_size": 64,
    "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 128,
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

# name, format, rows, cols, group size, shift
MATRICES = [
    ("model.embed_tokens", "q8", 40, 64, 32, False),
    ("model.layers.0.self_attn.q_proj", "t2", 64, 64, 32, False),
    ("model.layers.0.self_attn.k_proj", "t19", 32, 64, 64, False),
    ("model.layers.0.self_attn.v_proj", "t5", 32, 64, 32, True),
    ("model.layers.0.self_attn.o_proj", "f16", 64, 64, 64, False),
    ("model.layers.0.mlp.gate_proj", "b1", 37, 64, 32, True),
    ("model.layers.0.mlp.up_proj", "q4", 37, 64, 64, False),
    ("model.layers.0.mlp.down_proj", "t2", 64, 37, 37, True),
    ("lm_head", "f32", 40, 64, 64, False),
]
VECTORS = ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"]


def matrix(fmt: str, rows: int, cols: int, group: int, shift: bool, seed: int) -> PackedTensor:
    """Random codes, scales of about 0.1."""
    rng = np.random.default_rng(seed)
    if fmt in ("f16", "f32"):
        return pack(rng.normal(0, 0.1, (rows, cols)).astype("f2" if fmt == "f16" else "f4"), fmt)
    tensor = weights.tensor(fmt, rows, cols, group, shift, seed)
    high = {"q8": 127, "q4": 7}.get(fmt, 1)
    tensor.scale[:] = rng.uniform(0.05, 0.2, tensor.scale.shape) / high
    if shift:
        tensor.shift[:] = rng.uniform(-0.05, 0.05, tensor.shift.shape)
    return pack(tensor, fmt)


def tensors() -> dict[str, PackedTensor | NDArray[np.float32]]:
    made: dict[str, PackedTensor | NDArray[np.float32]] = {
        f"{name}.weight": matrix(*what, seed=seed) for seed, (name, *what) in enumerate(MATRICES)
    }
    return made | {f"{name}.weight": np.linspace(0.5, 1.5, 64, dtype=np.float32) for name in VECTORS}


def save(folder: Path, *, sealed: bool = False, **changed: Any) -> None:
    """artifact.save with everything it needs; not `sealed`, its files may be changed, as those of earlier versions."""
    values: dict[str, Any] = {
        "model": MODEL, "tensors": tensors(), "tokenizer_files": {"tokenizer.json": b"{}"}, "recipe": {"name": "test"},
        "card": "# A model\n", "generation": {"eos_token_id": 2}, "source": {"name": "tiny"}, "calibration": {},
    }  # fmt: skip
    artifact.save(folder, **(values | changed))
    if not sealed:
        (folder / "SHA256SUMS").unlink()
