"""The real SmolLM2-135M of the tests: whole, or its first blocks as a model of its own; and English text without a
network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import torch
from safetensors.numpy import save_file

from tercet import families, sources
from tercet.artifact import Artifact
from tercet.packing import PackedTensor, unpack
from tercet.program.hadamard import rotated
from tercet.tensor import IntTensor, TernaryTensor

__all__ = ["dequantized", "text", "truncated"]


def text(part: int) -> str:
    """Python's own manual, every second topic: parts 0 and 1 share none."""
    return "\n\n".join(topics[name] for name in sorted(topics)[part::2])


def truncated(source: sources.Source, folder: Path, blocks: int) -> Path:
    """A folder with the first blocks of the source."""
    folder.mkdir(parents=True)
    config = {**source.config, "num_hidden_layers": blocks}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = source.tensors()
    wanted = [n for n in tensors if not n.startswith("model.layers.") or int(n.split(".")[2]) < blocks]
    save_file({name: np.ascontiguousarray(tensors[name]) for name in wanted}, folder / "model.safetensors")
    for name, content in source.tokenizer_files().items():
        (folder / name).write_bytes(content)
    generation = source.folder / "generation_config.json"
    if generation.exists():
        shutil.copy(generation, folder)
    return folder


def dequantized(source: sources.Source, folder: Path) -> torch.nn.Module:
    """The source's torch model with the weights of a packed folder, rotated back where they are stored rotated."""
    model, packed, state = source.pretrained(), Artifact.open(folder), {}
    blocks = families.model(packed.config["model"]).rotations
    for name, tensor in packed.tensors.items():
        loose = unpack(tensor) if isinstance(tensor, PackedTensor) else tensor
        values = loose.dequantize() if isinstance(loose, TernaryTensor | IntTensor) else loose
        values = rotated(values.astype(np.float64), blocks[name]) if name in blocks else values
        state[name] = torch.from_numpy(np.array(values, np.float32))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name == "lm_head.weight" for name in missing)
    return model
