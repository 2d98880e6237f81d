"""A tiny task to train: a Llama of 64 columns with quantizers on it, cross-entropy, and windows of random tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import tiny
from tercet import families
from tercet.modules.module import ProgramModule
from tercet.quantizers import AbsMeanConfig, CrulisConfig, LearnedConfig, LrQatConfig, QuantizerConfig, quantize_
from tercet.recipe import Train

__all__ = ["CONTEXT", "TinyTask", "module", "odd_task", "settings", "task", "weights", "windows"]

CONTEXT = 12


class TinyTask(nn.Module):
    """Cross-entropy of the student, and a random penalty, so that a lost random state shows."""

    def __init__(self, student: ProgramModule, noise: float) -> None:
        super().__init__()
        self.student = student
        self.teacher = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).requires_grad_(False)
        nn.init.ones_(self.teacher[0].weight)
        nn.init.zeros_(self.teacher[0].bias)
        self.noise = noise

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        ids = batch["ids"]
        logits = F.linear(self.student("text", ids).result, *self.student.head())[:, :-1]
        ce = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        norm = self.student.weight("model.norm.weight")
        penalty = self.noise * (norm * torch.rand(norm.shape, dtype=norm.dtype)).mean()
        return {"loss": ce + penalty, "ce": ce, "penalty": penalty}


def module(family: str = "llama", **overrides: Any) -> ProgramModule:
    """The tiny model that transformers has as `tiny.model(family, **overrides)`."""
    _, config, tensors = tiny.model(family, **overrides)
    return ProgramModule(families.model(config), tensors)


def usual(names: list[str]) -> dict[str, QuantizerConfig]:
    """Levels that are trained in the first block, absmean in the second."""
    learned = LearnedConfig(group_size=32, shift=True)
    return {name: AbsMeanConfig() if "layers.1" in name else learned for name in names}


MIXED: tuple[QuantizerConfig, ...] = (
    LearnedConfig(group_size="tensor", shift=True),  # of whose scale two processes cannot have parts
    CrulisConfig(group_size="row"),  # clips its latent weight after each step
    LrQatConfig(group_size="row", base="int8", rank=4),  # whose int8 weight is frozen
    AbsMeanConfig(group_size="tensor"),  # a mean over all rows
    LearnedConfig(group_size="row", shift=True),
)


def _mixed(names: list[str]) -> dict[str, QuantizerConfig]:
    """Quantizers of all kinds, in turns."""
    return {name: MIXED[index % len(MIXED)] for index, name in enumerate(names)}


def task(
    dtype: torch.dtype = torch.float32,
    noise: float = 0.1,
    chosen: Callable[[list[str]], dict[str, QuantizerConfig]] = usual,
    **overrides: Any,
) -> TinyTask:
    """Embedding and head are one, and frozen; `chosen` gives the linears their quantizers."""
    student = module(**overrides).to(dtype)
    student.get_parameter("model.embed_tokens.weight").requires_grad_(False)
    quantize_(student, chosen(student.description.linears))
    return TinyTask(student, noise)


def odd_task() -> TinyTask:
    """In float64: one block, quantizers of all kinds, and rows that two processes cannot share evenly."""
    return task(torch.float64, noise=0.0, chosen=_mixed, intermediate_size=45, num_hidden_layers=1)


def windows(count: int = 20, seed: int = 0) -> NDArray[np.int64]:
    return tiny.ids(count * CONTEXT, seed=seed).reshape(count, CONTEXT)


def settings(**changed: Any) -> Train:
    usual = {"steps": 12, "batch": 2, "accumulation": 2, "context": CONTEXT, "checkpoint_every": 4, "lr": 3e-3}
    return Train.model_validate({**usual, "precision": "float32", **changed})


def weights(folder: Path) -> dict[str, bytes]:
    """Every byte of the newest checkpoint's tensors, and the journal without times: what two runs are compared by."""
    newest = max((folder / "checkpoints").glob("step-*"))
    parts = {path.name: path.read_bytes() for path in newest.glob("*.safetensors")}
    return {**parts, "step": newest.name.encode(), "journal": journal(folder)}


def journal(folder: Path) -> bytes:
    lines = (folder / "journal.jsonl").read_text().splitlines()
    return "\n".join(line[: line.index(', "seconds"')] for line in lines).encode()
