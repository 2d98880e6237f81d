"""A model as a short list of operations over named buffers: the one description that every reader runs.

A family (`tercet.families`) turns a transformers config into a `Program`. The C++ engine compiles it once; the numpy
interpreter (`tercet.program.interpreter`) is the reference that tests and `verify` compare it with.

    embed      ids -> x                     weight, factor, dim          rotated back per `dim` columns, where not 0
    rmsnorm    x -> y                       weight, eps, dim, offset     y = x/rms*(weight + offset), per `dim` columns
    layernorm  x -> y                       weight, bias, eps, dim
    linear     x -> y                       weight, bias
    clip       x -> y                       limit                        min(max(x, -limit), limit)
    rotate     x -> y                       dim                          per `dim` columns (`tercet.program.hadamard`)
    rope       x -> y                       rope, heads, head_dim        rotates halves of the first rotary_dim columns
    attention  q, k, v -> y                 layer, heads, kv_heads, head_dim, window, factor
    activation x -> y                       function
    gated      gate, up -> y                function                       function(gate) * up
    add        a, b -> y

A buffer holds one row of float32 for each token. Norms, rope, position, add, clip and rotate may write over an input;
the others never do.
A decoder's first operation, embed, reads the buffer "ids", the last one writes "logits". An id at or beyond the
vocabulary names a given row: one from elsewhere, such as an image part made of a picture, that embed puts there as it
is, without `factor` and not rotated. The interpreter and torch take a table of given rows, whose first has the id
`vocab_size`; the engine gives each picture a range of ids of its own.

Towers, which turn a whole picture or text into one row (CLIP, SigLIP) or into many, have five more:

    prepend    x -> y                       weight                       a vector in front of the sequence's rows
    position   x -> y                       weight                       y = x + the first rows of a table of positions
    constant   x -> y                       weight                       one row, a vector, whatever x holds
    pick       x -> y, or x, ids -> y       row, token                   one row of the sequence
    drop       x -> y                                                    all rows of the sequence but the first

The first operation of an image tower, a linear, reads "patches" (`tercet.program.patches`), that of a text tower "ids";
the last one writes the one row of "embedding", which is not normalised, or all that there are then, "rows". An
operation's result has as many rows as its first input, but for prepend (one more), drop (one less), constant and pick
(one). Only attention, prepend, position, pick and drop look beyond a row, and none beyond its sequence: sequences of
equal length run as one batch, row after row. Attention has as many keys as it has; its queries may be fewer where it is
not `causal`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tercet.errors import ModelError
from tercet.program.original import Original

__all__ = ["Model", "ModelKind", "Op", "Picture", "Program", "Role", "Rope", "Weight"]

Kind = Literal[
    "embed", "rmsnorm", "layernorm", "linear", "clip", "rotate", "rope", "attention", "activation", "gated", "add",
    "prepend", "position", "constant", "pick", "drop",
]  # fmt: skip
Function = Literal["silu", "gelu", "gelu_tanh", "quick_gelu"]
Row = Literal["first", "last", "end"]
Role = Literal["linear", "embedding", "head", "position", "vector"]
ModelKind = Literal["text", "pair"]

USES = {
    "text": "a language model, without pictures; tercet generate, chat and eval --text are for it",
    "pair": "an image-text model, not one of language; tercet embed, index, search and eval --dataset are for it",
}


@dataclass(frozen=True)
class Op:
    """One operation; fields a kind does not use keep their defaults.

    Attributes:
        weight, bias: full tensor names, such as "model.layers.0.mlp.up_proj.weight"; "" where there is none.
        dim: columns a norm runs over (the head size for q/k norms, else the width), or a rotation's block; an
            embedding's, where its rows are stored rotated.
        offset: added to an RMSNorm's stored weight (Gemma stores weight - 1).
        factor: the embedding's multiplier, or attention's multiplier of q.k.
        window: keys a token sees, itself included; 0 means all before it.
        layer: index of the attention layer, which owns a slot of the KV cache.
        rope: index into `Program.ropes`.
        limit: of a clip.
        causal: whether attention sees only the keys up to the query's own.
        row: what `pick` takes: the first, the last, or the one at the end of the text, which is
        token: the first with this id (where there is none, the text's first), or of -1 the first with the largest id.
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
    causal: bool = True
    row: Row = "first"
    token: int = -1


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
        role: "linear" (of a block, may be ternary), "embedding" (of tokens or patches), "head" (its own matrix, not
            tied; a tower's last projection), "position" (a table of positions), or "vector".
    """

    shape: tuple[int, ...]
    role: Role


@dataclass(frozen=True, eq=False)
class Program:
    """A decoder or a tower.

    Attributes:
        family: the transformers model_type it was made from.
        ops: in order of execution.
        weights: by full name; the order is the order of first use.
        widths: columns of each buffer.
        blocks: for each transformer block, the names of its linears in order of use.
        vocab_size: token ids it knows; 0 where it reads patches.
        context: the longest sequence the model was made for; patches of a picture.
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
    def reads(self) -> str:
        """The buffer that the caller fills: "ids" or "patches"."""
        return self.ops[0].inputs[0]

    @property
    def gives(self) -> str:
        """The buffer that the caller wants: "logits", "embedding" or "rows"."""
        return self.ops[-1].output

    @property
    def last_norm(self) -> Op:
        """The norm in front of a language model's head."""
        return next(op for op in reversed(self.ops) if op.kind in ("rmsnorm", "layernorm"))

    @property
    def linears(self) -> list[str]:
        """Names of the matrices that may be ternary."""
        return [name for name, weight in self.weights.items() if weight.role == "linear"]

    @property
    def rotations(self) -> dict[str, int]:
        """Columns of a block of the rotation, for each matrix whose input is rotated, or whose rows are rotated back
        when they are looked up: what is stored is W H."""
        found: dict[str, int] = {}
        turned: dict[str, int] = {}  # buffers that hold H x now
        for op in self.ops:
            if op.kind == "embed" and op.dim:
                found[op.weight] = op.dim
            if op.kind == "linear" and op.inputs[0] in turned:
                found[op.weight] = turned[op.inputs[0]]
            turned.pop(op.output, None)
            if op.kind == "rotate":
                turned[op.output] = op.dim
        return found


@dataclass(frozen=True)
class Picture:
    """The square picture that an image part reads.

    Attributes:
        size, patch: sides of the picture and of its patches, in pixels. What is left of the picture to the right of and
            below the last whole patch is not seen.
    """

    size: int
    patch: int


@dataclass(frozen=True, eq=False)
class Model:
    """A model: a family and named parts, each a program. What kind of model it is follows from what they read and give.

        text: ids -> logits                                            a language model
        image: patches -> embedding, text: ids -> embedding            an image-text model, whose parts meet in
            logits[i, t] = exp(scale) * <i/|i|, t/|t|> + bias

    Attributes:
        family: the transformers model_type it was made from.
        parts: "text" and, where the model sees pictures, "image"; they share no weights.
        picture: what the image part reads; None without one.
        scale: name of the logit scale's tensor, float32[1], which holds a logarithm; "" where there is none.
        bias: that of the logit bias, likewise.
        original: where its tensors are in the checkpoint it came from.
    """

    family: str
    parts: Mapping[str, Program]
    picture: Picture | None = None
    scale: str = ""
    bias: str = ""
    original: Original = field(default_factory=Original)

    @property
    def kind(self) -> ModelKind:
        """What lessons, recipes and commands choose by."""
        return "pair" if self.text.gives == "embedding" else "text"

    def expect(self, kind: ModelKind) -> Model:
        """The model itself. Raises ModelError where it is of another kind, and says what that is for."""
        if self.kind != kind:
            raise ModelError(f"config.json: {self.family} is {USES[self.kind]}")
        return self

    @property
    def text(self) -> Program:
        return self.parts["text"]

    @property
    def image(self) -> Program:
        return self.parts["image"]

    @property
    def pixels(self) -> Picture:
        """The picture of a model that sees some."""
        assert self.picture is not None
        return self.picture

    @property
    def weights(self) -> dict[str, Weight]:
        """What all parts read, and scale and bias."""
        own = {name: Weight((1,), "vector") for name in (self.scale, self.bias) if name}
        return {name: weight for part in self.parts.values() for name, weight in part.weights.items()} | own

    @property
    def linears(self) -> list[str]:
        """Names of the matrices of all parts' blocks."""
        return [name for part in self.parts.values() for name in part.linears]

    @property
    def rotations(self) -> dict[str, int]:
        """Of all parts, as `Program.rotations`."""
        return {name: block for part in self.parts.values() for name, block in part.rotations.items()}
