"""What is trained, at which rate: the optimizer's groups and the schedule of their rates.

    weights   latent weights of quantizers and other matrices     lr, weight decay
    scales    quantizers' own parameters (scales, shifts)         scale_lr
    vectors   norms and biases                                    norm_lr

    rate(step) = base * (step + 1) / w                            for the first w = warmup * steps steps
               = base * (1 + cos(pi (step - w) / (steps - w))) / 2    after them

A scale moves all weights of its group at once, so it learns 10 to 100 times more slowly than they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tercet.errors import TrainError
from tercet.quantizers import quantized
from tercet.recipe.settings import Train

__all__ = ["LOWRANK", "optimizer_of", "set_rates", "trained"]

LOWRANK = frozenset({"a", "b"})  # factors of a low-rank product are weights, though they are the quantizer's own


def trained(task: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by name; a tied parameter once."""
    return {name: parameter for name, parameter in task.named_parameters() if parameter.requires_grad}


def optimizer_of(task: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimizer; its groups have a "name" and a "base" rate. Raises TrainError where there is nothing to train."""
    own = {
        id(parameter)
        for _, quantizer, _ in quantized(task)
        for name, parameter in quantizer.named_parameters()
        if name not in LOWRANK
    }
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "scales": [], "vectors": []}
    for parameter in trained(task).values():
        kind = "scales" if id(parameter) in own else "weights" if parameter.ndim > 1 else "vectors"
        groups[kind].append(parameter)
    rates = {"weights": settings.lr, "scales": settings.scale_lr, "vectors": settings.norm_lr}
    described: list[dict[str, Any]] = [
        {"params": parameters, "name": name, "base": rates[name], "lr": rates[name], "weight_decay": 0.0}
        for name, parameters in groups.items()
        if parameters
    ]
    if not described:
        raise TrainError("the task has no parameter that requires a gradient; there is nothing to train")
    for group in described:
        if group["name"] == "weights":
            group["weight_decay"] = settings.weight_decay
    fused = _fused(p for group in described for p in group["params"])
    if settings.optimizer == "sgd":
        return torch.optim.SGD(described, fused=fused)
    return torch.optim.AdamW(described, fused=fused)


def _fused(parameters: Iterable[Tensor]) -> bool:
    """Whether torch has one kernel for the whole update there: on a CPU three times as fast as the loop."""
    return all(p.device.type in ("cpu", "cuda", "xpu", "mps") and p.is_floating_point() for p in parameters)


def set_rates(optimizer: torch.optim.Optimizer, step: int, settings: Train) -> dict[str, float]:
    """Sets the rates of a step, counted from 0; returns them by group."""
    share = _share(step, settings.steps, math.ceil(settings.warmup * settings.steps))
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * share
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def _share(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2
