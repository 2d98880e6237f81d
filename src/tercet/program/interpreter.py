"""The reference of all readers of a program: each operation as the few lines of numpy that define it.

Float32 throughout, sums of norms and softmax in float64. Slow and plain on purpose: attention is the full matrix of one
head at a time, nothing is cached, and no kernel is shared with what it checks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tercet.errors import ModelError
from tercet.program import Op, Program, Rope
from tercet.program.hadamard import rotated

__all__ = ["embeddings", "logits", "steps"]

Floats = NDArray[np.float32]


def logits(program: Program, tensors: Mapping[str, Floats], ids: ArrayLike, given: Floats | None = None) -> Floats:
    """Logits at every position of one sequence.

    Args:
        program: from `tercet.families.model`.
        tensors: float32 arrays by full name, with the shapes of `program.weights`.
        ids: int[n], 1 <= n <= program.context.
        given: float32[rows, width], named by ids from `program.vocab_size` on (`tercet.program`, at embed).

    Returns float32[n, vocab]. Raises ModelError where a tensor is missing or has another shape, or ids do not fit.
    """
    for op, _, result in steps(program, tensors, ids, given):
        if op.output == "logits":
            return result
    raise ModelError("the program never writes logits")


def embeddings(program: Program, tensors: Mapping[str, Floats], rows: ArrayLike) -> Floats:
    """What a tower makes of pictures or texts: embeddings, not normalised, or rows.

    Args:
        program: a tower of `tercet.families.model`.
        tensors: as for `logits`.
        rows: float32[n, patches, columns] of an image tower (`tercet.program.patches`), int[n, length] of a text tower.

    Returns float32[n, dim], or float32[n, rows, width] of a program that gives "rows", which needs n of at least 1.
    Raises ModelError as `logits` does.
    """
    made = [list(steps(program, tensors, each))[-1][2] for each in np.asarray(rows)]
    if program.gives == "rows":
        return np.stack(made)
    return np.array(made, np.float32).reshape(len(made), program.widths["embedding"])


def steps(
    program: Program, tensors: Mapping[str, Floats], rows: ArrayLike, given: Floats | None = None
) -> Iterator[tuple[Op, tuple[Floats, ...], Floats]]:
    """Runs `program` on one sequence, ids or patches, and yields each operation with its inputs and its result,
    float32[n, width]; else as `logits`."""
    first = np.asarray(rows)
    source = program.ops[0].inputs[0]
    _check_input(program, source, first, 0 if given is None else len(given))
    _check_weights(program, tensors)
    buffers: dict[str, NDArray[np.generic]] = {source: first}
    for op in program.ops:
        inputs = tuple(buffers[name] for name in op.inputs)
        if op.kind == "embed" and given is not None:
            beyond = first >= program.vocab_size
            result = _run(op, (np.where(beyond, 0, first),), tensors, program.ropes)
            result[beyond] = given[first[beyond] - program.vocab_size]
        else:
            result = _run(op, inputs, tensors, program.ropes)  # type: ignore[arg-type]
        yield op, inputs, result  # type: ignore[misc]
        buffers[op.output] = result


def _check_input(program: Program, source: str, rows: NDArray[np.generic], given: int) -> None:
    if source == "patches":
        wanted = (program.context, program.weights[program.ops[0].weight].shape[1])
        if rows.shape != wanted or rows.dtype != np.float32:
            raise ModelError(f"a picture must be float32{list(wanted)}, patches by columns")
        return
    tokens = rows
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not 1 <= tokens.size <= program.context:
        raise ModelError(f"token ids must be 1 to {program.context} integers in one row")
    ids = program.vocab_size + given
    if tokens.min() < 0 or tokens.max() >= ids:
        raise ModelError(f"a token id is outside 0..{ids - 1}")


def _check_weights(program: Program, tensors: Mapping[str, Floats]) -> None:
    for name, weight in program.weights.items():
        if name not in tensors:
            raise ModelError(f"the model has no tensor {name}; is it complete?")
        if tensors[name].shape != weight.shape:
            raise ModelError(f"{name} is {list(tensors[name].shape)}; the config says {list(weight.shape)}")


def _run(op: Op, inputs: tuple[Floats, ...], tensors: Mapping[str, Floats], ropes: tuple[Rope, ...]) -> Floats:
    x = inputs[0]
    match op.kind:
        case "embed":
            y = tensors[op.weight][x] * np.float32(op.factor)
            y = rotated(y, op.dim) if op.dim else y
        case "rmsnorm" | "layernorm":
            y = _norm(op, x, tensors[op.weight], tensors[op.bias] if op.bias else np.float32(0))
        case "linear":
            y = x @ tensors[op.weight].T + (tensors[op.bias] if op.bias else np.float32(0))
        case "clip":
            y = np.clip(x, -np.float32(op.limit), np.float32(op.limit))
        case "rotate":
            y = rotated(x, op.dim)
        case "rope":
            y = _rope(op, x, ropes[op.rope])
        case "attention":
            y = _attention(op, *inputs)
        case "activation":
            y = _activate(op, x)
        case "gated":
            y = _activate(op, x) * inputs[1]
        case "add":
            y = x + inputs[1]
        case "prepend":
            y = np.concatenate([tensors[op.weight][None], x])
        case "position":
            y = x + tensors[op.weight][: len(x)]
        case "constant":
            y = tensors[op.weight][None]
        case "pick":
            y = x[[_row(op, *inputs)]]
        case "drop":
            y = x[1:]
    return np.asarray(y, np.float32)


def _norm(op: Op, x: Floats, weight: Floats, bias: Floats | np.float32) -> NDArray[np.float64]:
    groups = x.reshape(len(x), -1, op.dim).astype(np.float64)
    if op.kind == "layernorm":
        groups = groups - groups.mean(axis=2, keepdims=True)
    root = np.sqrt((groups**2).mean(axis=2, keepdims=True) + op.eps)
    y: NDArray[np.float64] = groups / root * (weight.astype(np.float64) + op.offset) + bias
    return y.reshape(x.shape)


def _rope(op: Op, x: Floats, rope: Rope) -> Floats:
    half = rope.inv_freq.size
    angle = np.arange(len(x), dtype=np.float32)[:, None] * rope.inv_freq
    cos = (np.cos(angle) * np.float32(rope.factor))[:, None]  # [n, 1, half]
    sin = (np.sin(angle) * np.float32(rope.factor))[:, None]
    heads = x.reshape(len(x), op.heads, op.head_dim)
    first, second = heads[..., :half], heads[..., half : 2 * half]
    turned = (first * cos - second * sin, second * cos + first * sin, heads[..., 2 * half :])
    return np.concatenate(turned, axis=2).reshape(x.shape)


def _attention(op: Op, q: Floats, k: Floats, v: Floats) -> Floats:
    n = len(q)
    behind = np.arange(n)[:, None] - np.arange(len(k))  # how far a key lies behind a query
    visible = (behind >= 0) & (behind < (op.window or n)) if op.causal else np.full(behind.shape, True)
    out = np.empty((n, op.heads, op.head_dim), np.float32)
    for head in range(op.heads):
        own = slice(head * op.head_dim, (head + 1) * op.head_dim)
        group = head // (op.heads // op.kv_heads)
        shared = slice(group * op.head_dim, (group + 1) * op.head_dim)
        scores = np.where(visible, (q[:, own] @ k[:, shared].T).astype(np.float64) * op.factor, -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        out[:, head] = weights.astype(np.float32) @ v[:, shared]
    return out.reshape(n, -1)


def _row(op: Op, x: Floats, ids: Floats | None = None) -> int:
    if op.row == "end":
        assert ids is not None
        return int((ids if op.token < 0 else ids == op.token).argmax())  # the first of several; 0 where there is none
    return 0 if op.row == "first" else len(x) - 1


def _activate(op: Op, x: Floats) -> NDArray[np.float64]:
    y = x.astype(np.float64)
    if op.function == "silu":
        gate = np.tanh(y / 2)  # y / (1 + exp(-y)) without overflow
    elif op.function == "quick_gelu":
        gate = np.tanh(0.851 * y)  # y / (1 + exp(-1.702 y))
    elif op.function == "gelu":
        gate = np.array([math.erf(value) for value in (y / math.sqrt(2)).flat]).reshape(y.shape)
    else:
        gate = np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3))
    y *= 0.5 * (1 + gate)
    return y
