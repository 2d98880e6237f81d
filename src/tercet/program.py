"""A model as a short list of operations over named buffers: the one description that every reader runs.

A family (`tercet.families`) turns a transformers config into a `Program`. The C++ engine compiles it once; the numpy
interpreter (`tercet.interpreter`) is the reference that tests and `verify` compare it with.

    embed      ids -> x                     weight, factor
    rmsnorm    x -> y                       weight, eps, dim, offset     y = x/rms*(weight + offset), per `dim` columns
    layernorm  x -> y                       weight, bias, eps, dim
    linear     x -> y                       weight, bias
    clip       x -> y                       limit                        min(max(x, -limit), limit)
    rotate     x -> y                       dim                          per `dim` columns (`tercet.hadamard`)
    rope       x -> y                       rope, heads, head_dim        rotates halves of the first rotary_dim columns
    attention  q, k, v -> y                 layer, heads, kv_heads, head_dim, window, factor
    activation x -> y                       function
    gated      gate, up -> y                function                       function(gate) * up
    add        a, b -> y

A buffer holds one row of float32 for each token. Norms, rope, add, clip and rotate may write over an input; the others
never do.
The first operation reads the buffer "ids", the last one writes "logits".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Op", "Program", "Rope", "Weight"]

Kind = Literal[
    "embed", "rmsnorm", "layernorm", "linear", "clip", "rotate", "rope", "attention", "activation", "gated", "add"
]
Function = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True)
class Op:
    """One operation; fields a kind does not use keep their defaults.

    Attributes:
        weight, bias: full tensor names, such as "model.layers.0.mlp.up_proj.weight"; "" where there is none.
        dim: columns a norm runs over (the head size for q/k norms, else the width), or a rotation's block.
        offset: added to an RMSNorm's stored weight (Gemma stores weight - 1).
        factor: the embedding's multiplier, or attention's multiplier of q.k.
        window: keys a token sees, itself included; 0 means all before it.
        layer: index of the attention layer, which owns a slot of the KV cache.
        rope: index into `Program.ropes`.
        limit: of a clip.
    """

    kind: Kind
    inputs: tuple[str, ...]
    output: str
    weight: str = ""
    bias: str = ""
    eps: float = 0.0
    dim: int = 0
    offset: float = 0.0
    factor: float = 1.0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    window: int = 0
    layer: int = 0
    rope: int = 0
    function: Function = "silu"
    limit: float = 0.0


@dataclass(frozen=True, eq=False)
class Rope:
    """Rotary embedding: angle = f32(position) * inv_freq in float32; cos and sin are multiplied by `factor`.

    Attributes:
        inv_freq: float32[rotary_dim / 2], scaling (linear, llama3, yarn ...) already applied.
        factor: attention scaling of yarn and longrope; 1 for the others.
    """

    inv_freq: NDArray[np.float32]
    factor: float = 1.0


@dataclass(frozen=True)
class Weight:
    """A tensor the program reads.

    Attributes:
        shape: (out, in) of a matrix, (n,) of a norm or bias.
        role: "linear" (may be ternary), "embedding", "head" (its own matrix, not tied), or "vector".
    """

    shape: tuple[int, ...]
    role: Literal["linear", "embedding", "head", "vector"]


@dataclass(frozen=True, eq=False)
class Program:
    """A decoder.

    Attributes:
        family: the transformers model_type it was made from.
        ops: in order of execution.
        weights: by full name; the order is the order of first use.
        widths: columns of each buffer.
        blocks: for each transformer block, the names of its linears in order of use.
        context: the longest sequence the model was made for.
    """

    family: str
    ops: tuple[Op, ...]
    weights: dict[str, Weight]
    widths: dict[str, int]
    ropes: tuple[Rope, ...]
    blocks: tuple[tuple[str, ...], ...]
    vocab_size: int
    context: int

    @property
    def linears(self) -> list[str]:
        """Names of the matrices that may be ternary."""
        return [name for name, weight in self.weights.items() if weight.role == "linear"]

    @property
    def rotations(self) -> dict[str, int]:
        """Columns of a block of the rotation, for each matrix whose input is rotated: what is stored is W H."""
        found: dict[str, int] = {}
        turned: dict[str, int] = {}  # buffers that hold H x now
        for op in self.ops:
            if op.kind == "linear" and op.inputs[0] in turned:
                found[op.weight] = turned[op.inputs[0]]
            turned.pop(op.output, None)
            if op.kind == "rotate":
                turned[op.output] = op.dim
        return found
