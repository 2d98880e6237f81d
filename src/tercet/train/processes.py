"""One process or many: how a task is wrapped, and how the processes agree.

`accelerate launch` (or torchrun) starts them, and accelerate finds what they run on: gloo on CPUs, NCCL on GPUs. Then

    DDP     each process holds the whole task; gradients are averaged
    FSDP2   (`accelerate launch --use_fsdp`) each process holds a part of the rows of every parameter. A block's
            parameters are gathered before it runs, and the quantizers run inside it: they see whole matrices, so rows,
            groups and whole tensors may share scales. Between steps a latent weight is a DTensor, and
            `Quantizer.after_step` gets that.

accelerate itself shards only what runs on GPUs; here torch's `fully_shard` is called directly, so that two processes on
a CPU test what many GPUs do. Autocast, clipping and checkpoints are done in the loop, the same way for all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.utils import InitProcessGroupKwargs  # type: ignore[import-untyped]
from torch import Tensor, nn

from tercet.errors import TercetError, TrainError
from tercet.modules.module import Block

__all__ = ["Processes", "whole"]

LONGEST = timedelta(days=2)  # that processes wait for the first one's calibration or evaluation


class Processes:
    """Attributes: index, count; device: this process's; sharded: whether parameters are (FSDP2)."""

    def __init__(self) -> None:
        has_device = torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()
        # Without `cpu`, accelerate takes processes that have no GPU for so many runs of their own.
        waits = InitProcessGroupKwargs(timeout=LONGEST)
        self.accelerator = Accelerator(cpu=not has_device, mixed_precision="no", kwargs_handlers=[waits])
        self.index = int(self.accelerator.process_index)
        self.count = int(self.accelerator.num_processes)
        self.device = cast(torch.device, self.accelerator.device)
        self.sharded = self.count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true")

    @property
    def first(self) -> bool:
        return self.index == 0

    def wrap(self, task: nn.Module) -> nn.Module:
        """The task on this process's device, to be called in its stead; its parameters may be other objects then."""
        if not self.sharded:
            return cast(nn.Module, self.accelerator.prepare_model(task))
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.count,))
        task.to(self.device)
        for block in [module for module in task.modules() if isinstance(module, Block)]:
            fully_shard(block, mesh=mesh)
        # Embeddings, heads and norms belong to the whole: a task may read a head's weight without calling it.
        return cast(nn.Module, fully_shard(task, mesh=mesh))

    def unsynced(self, model: nn.Module) -> AbstractContextManager[Any]:
        """For all passes of a step but the last: DDP need not average their gradients. (FSDP2 adds up its parts.)"""
        if self.count == 1 or self.sharded:
            return nullcontext()
        return cast(AbstractContextManager[Any], self.accelerator.no_sync(model))

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """The others come in when the first is done, and find what it left in the cache."""
        with self.accelerator.main_process_first():
            yield

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over all processes."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return [float(value) / self.count for value in tensor.tolist()]

    def first_does(self, work: Callable[[], Any]) -> Any:
        """What the first process's `work` returns (plain JSON), on all of them; its TercetError is raised on all."""
        result: Any = None
        failure: TercetError | None = None
        if self.first:
            try:
                result = work()
            except TercetError as error:
                failure = error
        if self.count == 1:
            if failure is not None:
                raise failure
            return result
        message = [None if failure is None else str(failure), result]
        reason, result = json.loads(self._from_first(json.dumps(message).encode()))
        if failure is not None:
            raise failure
        if reason is not None:
            raise TrainError(reason)
        return result

    def gather(self, data: bytes) -> list[bytes]:
        """Every process's bytes, in order, on all of them."""
        if self.count == 1:
            return [data]
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(data)], device=self.device))
        longest = max(int(size) for size in sizes)
        padded = torch.frombuffer(bytearray(data.ljust(longest, b"\0")), dtype=torch.uint8).to(self.device)
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded)
        return [bytes(part.cpu().numpy())[: int(size)] for part, size in zip(parts, sizes, strict=True)]

    def _from_first(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)], device=self.device)
        dist.broadcast(size, 0)
        buffer = torch.zeros(int(size), dtype=torch.uint8)
        if self.first:
            buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        buffer = buffer.to(self.device)
        dist.broadcast(buffer, 0)
        return bytes(buffer.cpu().numpy())


def whole(tensor: Tensor) -> Tensor:
    """A tensor as it is, or gathered from all processes, which then all have to ask for it."""
    return cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor
