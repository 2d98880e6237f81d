"""What a run is made of: a checkpoint goes on only in the run that it comes from.

The same bits need the same settings, windows, modules, frozen weights, versions, threads and instruction set. All of it
is plain JSON inside the checkpoint, so that a refusal can name what changed, from what to what. Weights that are
trained are not part of it: the checkpoint has them.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import google_crc32c
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel
from torch import nn

import tercet
from tercet.errors import TrainError
from tercet.modules.module import ProgramModule
from tercet.modules.precision import uses_bfloat16
from tercet.recipe.settings import Train
from tercet.train.processes import Processes

__all__ = ["check", "identity"]

ROWS = 1 << 12  # windows hashed at a time
FREE = ("checkpoint_every",)  # settings that no result depends on


def identity(
    task: nn.Module,
    arrays: Mapping[str, NDArray[Any]],
    settings: Train,
    processes: Processes,
    others: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Plain JSON; to be asked before the task is wrapped.

    Args:
        others: what else decides the result, such as the recipe.
    """
    return {
        "settings": {k: v for k, v in settings.model_dump(mode="json").items() if k not in FREE},
        "data": _data(arrays),
        "task": {**_task(task), **_losses(task)},
        "versions": {name: _version(name) for name in ("torch", "transformers", "accelerate", "numpy")}
        | {"tercet": tercet.__version__, "python": platform.python_version()},
        "machine": {
            "device": str(processes.device.type),
            "isa": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "processes": processes.count,
            "sharded": processes.sharded,
            "bfloat16": uses_bfloat16(settings.precision, processes.device),
        },
        "others": dict(others or {}),
    }


def check(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Raises TrainError, one line that names what changed, unless both are the same."""
    old, new = dict(_flat(before)), dict(_flat(now))
    changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    if changed:
        first = changed[0]
        more = f" (and {len(changed) - 1} more: {', '.join(changed[1:4])})" if len(changed) > 1 else ""
        raise TrainError(
            f"{where} was begun with {first} {_short(old.get(first))}, now it is {_short(new.get(first))}{more}; "
            "change it back, take another folder, or resume all the same"
        )


def _data(arrays: Mapping[str, NDArray[Any]]) -> dict[str, str]:
    """Shapes, and a digest of the ids; other arrays are made from them."""
    digest = hashlib.sha256()
    ids = arrays["ids"]
    for begin in range(0, len(ids), ROWS):
        digest.update(np.ascontiguousarray(ids[begin : begin + ROWS]).data)
    shapes = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    return {**shapes, "sha256": digest.hexdigest()}


def _task(task: nn.Module) -> dict[str, str]:
    """Digests: of all modules, programs, names and shapes; of what is not trained."""
    programs = [module.description for module in task.modules() if isinstance(module, ProgramModule)]
    modules = re.sub(r" at 0x[0-9a-f]+", "", f"{task!r}{programs!r}")
    frozen = 0
    for name, parameter in task.named_parameters():
        modules += f"\n{name} {parameter.dtype} {list(parameter.shape)} {parameter.requires_grad}"
        if not parameter.requires_grad:
            data = parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            frozen = google_crc32c.extend(frozen, data)
    return {"modules": hashlib.sha256(modules.encode()).hexdigest()[:16], "frozen": f"{frozen:08x}"}


def _losses(task: nn.Module) -> dict[str, Any]:
    """A task's `settings`, which no module shows."""
    settings = getattr(task, "settings", None)
    return settings.model_dump(mode="json") if isinstance(settings, BaseModel) else {}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(item) if isinstance(item, tuple) else item


def _short(value: Any) -> str:
    return str(value)[:80]
