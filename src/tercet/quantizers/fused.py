"""The nearest level and its gradients in one pass over memory each: what a training step on a CPU waits for otherwise.

The native library's loops give the bits that `Levels` gives (tests compare them); a dozen torch operations would read
and write the whole matrix as often. Under autocast the values come in its dtype, rounded last, without a cast of their
own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tercet import _native

__all__ = ["dequantize", "fits"]

NONE = torch.empty((0, 0))


def fits(w: Tensor) -> bool:
    """Whether the native loops take this weight: float32, on a CPU, rows one after the other."""
    plain = w.device.type == "cpu" and w.dtype == torch.float32 and w.is_contiguous()
    return plain and not torch.compiler.is_compiling() and _dtype(w) in (torch.float32, torch.bfloat16)


def dequantize(w: Tensor, scale: Tensor, shift: Tensor | None, *, binary: bool) -> Tensor:
    """scale*T + shift, [out, in], in autocast's dtype or float32; gradients as of `tercet.quantizers.learned`.

    Args:
        w: float32[out, in].
        scale, shift: float32[out, groups], rounded to float16 here; a scale's sign does not count.
    """
    values: Tensor = _Nearest.apply(w, scale, shift, binary)  # type: ignore[no-untyped-call]
    return values


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, shift: Tensor | None, binary: bool) -> Tensor:
        codes = torch.empty(w.shape, dtype=torch.int8)
        values = torch.empty(w.shape, dtype=_dtype(w))
        shifts = NONE if shift is None else _memory(shift.half().float())
        scales = _memory(scale.abs().half().float())
        _native.levels_forward(_memory(w), scales, shifts, binary, codes, _memory(values))
        ctx.save_for_backward(codes, scale)
        ctx.shifted = shift is not None
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        codes, before = ctx.saved_tensors
        weight, scale = torch.empty(codes.shape), torch.empty_like(before)
        shift = torch.empty_like(before) if ctx.shifted else None
        shifts = NONE if shift is None else _memory(shift)
        _native.levels_backward(_memory(grads[0]), codes, _memory(weight), _memory(scale), shifts)
        return weight, scale.mul_(before.sign()), shift, None


def _dtype(w: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else w.dtype


def _memory(x: Tensor) -> Tensor:
    """What the native library reads, bfloat16 as int16. It gets tensors: one that was ever seen as a numpy array
    cannot be freed and gathered again, which FSDP2 does with every parameter.
    """
    x = x.detach().contiguous()
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x
