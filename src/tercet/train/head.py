"""Hidden states to a loss through the head, some rows at a time: [tokens, vocab] is never whole in memory.

The gradient for a chunk's hidden states is taken while its logits are there; backward only scales it. What stays is
[tokens, width]. (The idea is Liger kernel's fused linear cross-entropy, arXiv:2410.10989; the head is frozen here, so
its own gradient is not needed.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Head", "RowLosses", "head_losses"]

ROWS = 256  # logits of 256 * 49152 floats are 50 MB

RowLosses = Callable[[Tensor, slice], Mapping[str, tuple[float, Tensor]]]
"""(logits of some rows, which rows) -> by name: a weight, and float32[rows]."""


class Head(NamedTuple):
    """A frozen head: weight [vocab, width], in the dtype that products are computed in, and bias [vocab] or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocab] of [..., width]."""
        bias = None if self.bias is None else self.bias.to(self.weight.dtype)
        return F.linear(hidden.to(self.weight.dtype), self.weight, bias)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, losses: RowLosses, parts: dict[str, Tensor]) -> Tensor:
        gradient, count = torch.empty_like(hidden), len(hidden)
        total = hidden.new_zeros((), dtype=torch.float64)
        for begin in range(0, count, ROWS):
            rows = slice(begin, min(begin + ROWS, count))
            with torch.enable_grad():
                logits = head(hidden[rows]).detach().requires_grad_()
                found = losses(logits, rows)
                loss = torch.stack([weight * values.sum() for weight, values in found.values()]).sum() / count
            (towards,) = torch.autograd.grad(loss, logits)
            gradient[rows] = towards.to(head.weight.dtype) @ head.weight
            total += loss.detach().double()
            for name, (_, values) in found.items():
                parts[name] = parts.get(name, 0.0) + values.detach().double().sum() / count
        ctx.save_for_backward(gradient)
        return total.to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None, None


def head_losses(hidden: Tensor, head: Head, losses: RowLosses) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of losses, each a mean over all rows; and each by itself, without gradients.

    Args:
        hidden: [tokens, width], what the head reads.
        losses: of a chunk of rows.
    """
    parts: dict[str, Tensor] = {}
    with torch.autocast(hidden.device.type, enabled=False):
        total: Tensor = _HeadLoss.apply(hidden, head, losses, parts)  # type: ignore[no-untyped-call]
    return total, {name: value.float() for name, value in parts.items()}
