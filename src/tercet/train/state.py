"""What a checkpoint holds of a task and its optimizer, and how it gets back into them.

    weights     parameters that are trained; buffers, whose values training may move
    optimizer   AdamW's moments and step counts, by parameter; nothing of SGD

Frozen parameters are not saved: they are as they were before training. Tensors are copied into those that are there, so
that a resumed run computes at the same addresses' alignment, and sharded ones take their part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tercet.errors import TrainError
from tercet.train.checkpoint import Checkpoints
from tercet.train.parameters import trained

__all__ = ["all_finite", "load_weights", "optimizer_tensors", "restore_optimizer", "restore_weights", "weight_tensors"]


def weight_tensors(task: nn.Module) -> dict[str, Tensor]:
    """What training changes, by name."""
    stored = task.state_dict().keys()
    buffers = {name: buffer for name, buffer in task.named_buffers() if name in stored}
    return {**trained(task), **buffers}


def optimizer_tensors(task: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state, by "<parameter>/<part>"."""
    return {
        f"{name}/{part}": value
        for name, parameter in trained(task).items()
        for part, value in optimizer.state.get(parameter, {}).items()
    }


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Of sharded tensors, this process's parts."""
    parts = (_local(tensor) for tensor in tensors)
    return all(bool(part.isfinite().all()) for part in parts if part.is_floating_point())


@torch.no_grad()
def restore_weights(task: nn.Module, stored: Iterator[tuple[str, Tensor]]) -> None:
    """Raises TrainError where names or shapes are not those of the task."""
    wanted = weight_tensors(task)
    for name, value in stored:
        target = wanted.pop(name, None)
        if target is None or target.shape != value.shape:
            raise TrainError(f"the checkpoint has {name}{list(value.shape)}, the task has not; make the task it is of")
        _local(target).copy_(_part_of(value, target))
    if wanted:
        raise TrainError(f"the checkpoint lacks {next(iter(wanted))}; make the task it is of")


@torch.no_grad()
def restore_optimizer(task: nn.Module, optimizer: torch.optim.Optimizer, stored: Iterator[tuple[str, Tensor]]) -> None:
    """Raises TrainError where there is no such parameter."""
    parameters = trained(task)
    for key, value in stored:
        name, _, part = key.rpartition("/")
        if name not in parameters:
            raise TrainError(f"the checkpoint has trained {name}, the task does not; make the task it is of")
        parameter = parameters[name]
        if value.ndim == 0 or value.shape != parameter.shape:  # a count of steps
            made = value.clone()
        else:
            made = torch.empty_like(parameter, dtype=value.dtype)
            _local(made).copy_(_part_of(value, parameter))
        optimizer.state[parameter][part] = made if made.ndim else made.to(parameter.device)


def load_weights(task: nn.Module, folder: str | Path) -> int:
    """Gives a task what the newest checkpoint of a run has trained; returns the checkpoint's step.

    Args:
        task: made as the one that was trained, on any device, not wrapped.
        folder: of the run.

    Raises TrainError where there is no checkpoint or it is of another task, FormatError where all are damaged.
    """
    checkpoint = Checkpoints(Path(folder) / "checkpoints").newest()
    if checkpoint is None:
        raise TrainError(f"{folder}: no checkpoint; train first")
    restore_weights(task, checkpoint.tensors("weights"))
    return checkpoint.step


def _local(tensor: Tensor) -> Tensor:
    """This process's part."""
    sharded: Any = tensor
    return sharded.to_local() if hasattr(sharded, "to_local") else tensor


def _part_of(value: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor."""
    if not hasattr(like, "to_local"):
        return value
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    mesh = sharded.device_mesh
    return _local(distribute_tensor(value.to(mesh.device_type), mesh, sharded.placements))
