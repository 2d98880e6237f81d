"""A program's operations in torch, on a chunk of windows: what calibration, training and float models compute with.

Every buffer is float32[windows, tokens, width]. Plain dense math: weights arrive dequantized, attention is torch's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from tercet.modules.rotation import rotate
from tercet.program import Op, Program, Rope

__all__ = ["Buffers", "counted", "run"]

Buffers = dict[str, Tensor]


def run(program: Program, op: Op, buffers: Buffers, weights: Mapping[str, Tensor]) -> None:
    """Run `op` on `buffers` and put its result there.

    Args:
        buffers: "ids" int64[windows, tokens], all others float32[windows, tokens, width], of an image tower "patches";
            "given" float32[rows, width] where ids from `vocab_size` on name given rows (`tercet.program`, at embed).
        weights: float32 tensors by full name.
    """
    inputs = tuple(buffers[name] for name in op.inputs)
    x = inputs[0]
    weight = weights[op.weight] if op.weight else x.new_empty(0)
    bias = weights[op.bias] if op.bias else None
    match op.kind:
        case "embed":
            y = _embed(program, op, x, weight, buffers.get("given"))
        case "rmsnorm":  # in the weight's dtype: torch is slow where a product has left x in bfloat16
            y = F.rms_norm(_heads(x.to(weight.dtype), op.dim), (op.dim,), weight + op.offset, op.eps).reshape(x.shape)
        case "layernorm":
            y = F.layer_norm(_heads(x, op.dim), (op.dim,), weight + op.offset, bias, op.eps).reshape(x.shape)
        case "linear":
            y = F.linear(x, weight, bias)
        case "clip":
            y = x.clamp(-op.limit, op.limit)
        case "rotate":
            y = rotate(x, op.dim)
        case "rope":
            y = _rope(op, x, program.ropes[op.rope])
        case "attention":
            y = _attention(op, *inputs)
        case "activation":
            y = _activate(op, x)
        case "gated":
            y = _activate(op, x).mul_(inputs[1])
        case "add":
            y = x + inputs[1]
        case "prepend":
            y = torch.cat([weight.expand(len(x), 1, -1), x], dim=1)
        case "position":
            y = x + weight[: x.shape[1]]
        case "constant":
            y = weight.expand(len(x), 1, -1)
        case "pick":
            y = _picked(op, *inputs)
        case "drop":
            y = x[:, 1:]
    buffers[op.output] = y


def counted(program: Program, rows: Tensor) -> Tensor | slice:
    """Which tokens the results of blocks are compared on, bool[windows, tokens], or a slice that means all.

    Where a text's end stands for it and nothing looks ahead, no embedding depends on the padding behind the end, and
    there is more of it than of the text.

    Args:
        rows: int64[windows, tokens] of a text tower; of others anything.
    """
    ends = [op for op in program.ops if op.kind == "pick" and op.row == "end"]
    if not ends or not all(op.causal for op in program.ops if op.kind == "attention"):
        return slice(None)
    return torch.arange(rows.shape[1], device=rows.device) <= _end_of_text(ends[0], rows)[:, None]


def _embed(program: Program, op: Op, ids: Tensor, weight: Tensor, given: Tensor | None) -> Tensor:
    beyond = ids >= program.vocab_size
    y = F.embedding(ids if given is None else ids.masked_fill(beyond, 0), weight) * op.factor
    y = rotate(y, op.dim) if op.dim else y
    return y if given is None else y.index_put((beyond,), given[ids[beyond] - program.vocab_size].to(y.dtype))


def _end_of_text(op: Op, ids: Tensor) -> Tensor:
    """int64[windows]: where each text ends, for a `pick` of the row "end"."""
    found = ids if op.token < 0 else (ids == op.token).to(torch.int8)
    return found.argmax(1)  # the first of several; 0 where there is none


def _picked(op: Op, x: Tensor, ids: Tensor | None = None) -> Tensor:
    if op.row == "end":
        assert ids is not None
        return x[torch.arange(len(x), device=x.device), _end_of_text(op, ids)][:, None]
    return x[:, :1] if op.row == "first" else x[:, -1:]


def _heads(x: Tensor, size: int) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, size)


def _rope(op: Op, x: Tensor, rope: Rope) -> Tensor:
    half = rope.inv_freq.size
    cos, sin = _angles(rope, x.shape[1], x.device)
    heads = _heads(x, op.head_dim)
    first, second = heads[..., :half], heads[..., half : 2 * half]
    turned = (first * cos - second * sin, second * cos + first * sin, heads[..., 2 * half :])
    return torch.cat(turned, dim=-1).reshape(x.shape)


@lru_cache(maxsize=16)
def _angles(rope: Rope, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, float32[tokens, 1, half]; all blocks and steps share them."""
    with torch.inference_mode(False):
        angle = torch.arange(tokens, dtype=torch.float32)[:, None] * torch.from_numpy(rope.inv_freq)
        return tuple((each * rope.factor)[:, None].to(device) for each in (angle.cos(), angle.sin()))  # type: ignore[return-value]


def _attention(op: Op, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tokens = q.shape[1]
    mask = None
    if op.causal and op.window and op.window < tokens:
        behind = torch.arange(tokens, device=q.device)[:, None] - torch.arange(tokens, device=q.device)
        mask = (behind >= 0) & (behind < op.window)
    q, k, v = (_heads(x, op.head_dim).transpose(1, 2) for x in (q, k, v))
    # torch goes back through bfloat16 attention on a CPU 8 times slower than through float32 where rows are short.
    trained = torch.is_grad_enabled() and q.device.type == "cpu"
    if trained:
        q, k, v = (x if x.dtype == torch.float64 else x.float() for x in (q, k, v))
    with torch.autocast("cpu", enabled=False) if trained else nullcontext():
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=op.causal and mask is None,
            scale=op.factor,
            enable_gqa=op.heads != op.kv_heads,
        )
    return out.transpose(1, 2).flatten(2)


def _activate(op: Op, x: Tensor) -> Tensor:
    if op.function == "silu":
        return F.silu(x)
    if op.function == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if op.function == "gelu" else "tanh")
