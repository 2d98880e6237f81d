"""`tercet.program.hadamard.rotated` for torch, with a gradient: H is its own transpose, so that is rotated likewise.

On the CPU, floats of 32 bits and less go through the engine's kernel: the same bits, and no tensor for each stage.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tercet import kernels
from tercet.program.hadamard import rotated

__all__ = ["rotate"]


def rotate(x: Tensor, block: int) -> Tensor:
    """x H along the last axis, differentiable any number of times: float[..., width] -> the same.

    Args:
        block: columns of a block, a power of two that divides the width.

    Raises QuantizeError or EngineError where the block is none.
    """
    result: Tensor = _Rotation.apply(x, block)  # type: ignore[no-untyped-call]
    return result


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: int) -> Tensor:
        ctx.block = block
        if x.device.type != "cpu" or x.dtype == torch.float64:
            return rotated(x, block)
        rows = x.reshape(-1, x.shape[-1]).float().numpy(force=True)
        return torch.from_numpy(kernels.rotate(rows, block)).reshape(x.shape).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return rotate(gradients[0], ctx.block), None
