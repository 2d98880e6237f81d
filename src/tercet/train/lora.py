"""LoRA (Hu et al. 2021, arXiv 2106.09685) on a ternary model: what is trained is small, what comes out is ternary.

    Q(W + c B A)        A [rank, in] small random numbers, B [out, rank] zeros, c = alpha/rank; W frozen

Ordinary LoRA adds B A behind a quantized weight; what it learnt has to survive being merged and rounded again. Here
B A is inside the quantizer Q, on the latent weight, as in LR-QAT (arXiv 2406.06385): training sees ternary weights,
whose codes flip where the sum of W and B A leaves its cell, and merging changes no bit of them. The optimizer keeps
rank * (in + out) numbers a matrix instead of in * out.

W should be latent weights that were trained, or the pretrained ones brought into the cells of their codes
(`quantize_` with `starts`). Scales that a quantizer trains go on being trained. Whoever calibrates the merged weights
anew takes their codes for a start.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tercet.errors import TrainError
from tercet.modules.module import ProgramModule
from tercet.quantizers import Quantizer
from tercet.recipe import Distil, Train
from tercet.train.loop import Evaluation, Record, Result, Resume, train
from tercet.train.tasks.text import TextTask

__all__ = ["add_lora", "fine_tune", "merge_lora"]


class Adapter(nn.Module):
    """W -> W + c B A. Attributes: a [rank, in], b [out, rank], in W's dtype, or float32 where that is narrower."""

    def __init__(self, w: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, width = w.shape
        dtype = w.dtype if w.dtype == torch.float64 else torch.float32
        small = (torch.rand(rank, width, generator=generator, dtype=dtype) * 2 - 1) / math.sqrt(width)
        self.a = nn.Parameter(small.to(w.device))
        self.b = nn.Parameter(torch.zeros(rows, rank, dtype=dtype, device=w.device))
        self.c = alpha / rank

    def extra_repr(self) -> str:
        return f"rank={len(self.a)}, c={self.c}"

    def forward(self, w: Tensor) -> Tensor:
        with torch.autocast(w.device.type, enabled=False):
            return torch.addmm(w, self.b, self.a, alpha=self.c)


def add_lora(model: nn.Module, rank: int = 16, alpha: float = 32.0, seed: int = 0) -> None:
    """Puts an adapter on each quantized weight of a model, in place; they, and trained scales, are all that is trained.

    Args:
        rank: of the change of each matrix.
        alpha: rank times the factor of B A.
        seed: of A.

    Raises TrainError where nothing is quantized, a latent weight is no float one (`lrqat` has adapters of its own), or
    there are adapters already.
    """
    chains = list(_chains(model))
    if not chains:
        raise TrainError("the model has no quantized weight to put an adapter on; quantize it first")
    for name, chain in chains:
        if parametrize.is_parametrized(chain):
            raise TrainError(f"{name} has an adapter already; merge it first")
        if not cast(Quantizer, chain[0]).trains_latent:
            raise TrainError(f"{name}: its quantizer trains a low-rank change of its own; go on training that")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    shared: dict[int, Adapter] = {}
    for _, chain in chains:
        latent = cast(nn.Parameter, chain.original)
        quantizer = cast(Quantizer, chain[0])
        if id(latent) not in shared:
            shared[id(latent)] = Adapter(latent, rank, alpha, generator)
        parametrize.register_parametrization(chain, "original", shared[id(latent)], unsafe=True)
        quantizer.requires_grad_(True)


def merge_lora(model: nn.Module) -> None:
    """Adds each adapter to its latent weight and takes it away, in place: what the model computes stays, to the bit.

    Raises TrainError where there is none.
    """
    chains = [chain for _, chain in _chains(model) if parametrize.is_parametrized(chain)]
    if not chains:
        raise TrainError("the model has no adapter to merge; add and train one first")
    merged: dict[int, nn.Parameter] = {}
    for chain in chains:
        inner = cast(Any, chain).parametrizations["original"]
        key = id(inner[0])
        if key not in merged:
            merged[key] = nn.Parameter(chain.original.detach())
        parametrize.remove_parametrizations(chain, "original", leave_parametrized=False)
        chain.original = merged[key]


def fine_tune(
    model: ProgramModule,
    windows: NDArray[np.int64],
    settings: Train,
    folder: str | Path,
    *,
    rank: int = 16,
    alpha: float = 32.0,
    identified: Mapping[str, Any] | None = None,
    evaluate: Evaluation | None = None,
    progress: Record | None = None,
    resume: Resume = True,
) -> Result:
    """Fine-tunes a quantized model on a text by adapters, merges them, and leaves the model ternary as it was.

    Args:
        model: a language model with quantizers on it (`quantize_`), which rounds the inputs of its linears where it is
            to run so (`ProgramModule.round_activations`).
        windows: int64[n, context] of the new text; the loss is the cross-entropy of its tokens.
        rank, alpha: see `add_lora`. The rest: see `train`.

    Where the model is sharded, it keeps its adapters: `load_weights` gives them to a whole one, then `merge_lora`.
    """
    add_lora(model, rank, alpha, settings.seed)
    task = TextTask(model, None, Distil(kl=0, ce=1))
    options: dict[str, Any] = {"identified": identified, "evaluate": evaluate, "progress": progress, "resume": resume}
    result = train(task, windows, settings, folder, **options)
    if not result.sharded:
        merge_lora(model)
    return result


def _chains(model: nn.Module) -> Iterator[tuple[str, parametrize.ParametrizationList]]:
    """The parametrizations of each quantized weight; those of a tied one several times."""
    for path, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for key, chain in cast(nn.ModuleDict, module.parametrizations).items():
                chain = cast(parametrize.ParametrizationList, chain)
                if isinstance(chain[0], Quantizer):
                    yield f"{path}.{key}", chain
