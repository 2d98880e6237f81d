"""A tiny model folder, in memory and on disk: every format, a vector, a tied embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import weights
from tercet import artifact
from tercet.packing import PackedTensor, pack

MODEL = {
    "model_type": "llama", "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip


def tensors() -> dict[str, PackedTensor | Any]:
    layer = "model.layers.0."
    return {
        "model.embed_tokens.weight": pack(weights.tensor("q8", 40, 64, 32, False, 1), "q8"),
        f"{layer}q_proj.weight": pack(weights.tensor("t2", 33, 64, 32, False, 2), "t2"),
        f"{layer}k_proj.weight": pack(weights.tensor("t2", 16, 21, 21, True, 3), "t2"),
        f"{layer}v_proj.weight": pack(weights.tensor("t19", 16, 64, 64, False, 4), "t19"),
        f"{layer}o_proj.weight": pack(weights.tensor("t5", 7, 64, 64, True, 5), "t5"),
        f"{layer}up_proj.weight": pack(weights.tensor("b1", 17, 64, 32, True, 6), "b1"),
        f"{layer}gate_proj.weight": pack(weights.tensor("q4", 16, 64, 64, False, 7), "q4"),
        f"{layer}down_proj.weight": pack(np.linspace(-1, 1, 15, dtype=np.float16).reshape(3, 5), "f16"),
        f"{layer}kept.weight": pack(np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3), "f32"),
        f"{layer}norm.weight": np.linspace(0.5, 2, 13, dtype=np.float32),
    }


def save(folder: Path, **changed: Any) -> None:
    """artifact.save with everything it needs."""
    values: dict[str, Any] = {
        "model": MODEL, "tensors": tensors(), "tokenizer_files": {"tokenizer.json": b"{}"}, "recipe": {"name": "test"},
        "card": "# A model\n", "generation": {"eos_token_id": 2}, "source": {"name": "tiny"}, "calibration": {},
    }  # fmt: skip
    artifact.save(folder, **(values | changed))
