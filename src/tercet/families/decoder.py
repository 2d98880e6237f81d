"""Decoder-only transformers as data: one `DecoderSpec`, one `build`, for every family.

    x = embed(ids)
    per block, sequential:  x += [norm](attention(norm(x)));  x += [norm](mlp(norm(x)))    [norm]: sandwich norms
               parallel:    x += attention(h) + mlp(h), h = norm(x)
    logits = head(norm(x))

What differs between families is a field of the spec; a family's file only says how its config words map to the fields.
Tensor names are those of transformers' state dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tercet.errors import ModelError
from tercet.families.builder import Builder
from tercet.families.family import Family
from tercet.families.rope import MAX_CONTEXT
from tercet.families.settings import Settings
from tercet.families.transforms import NONE, Transforms, read_transforms
from tercet.program import Function, Model, Program, Rope, Weight

__all__ = ["ACTIVATIONS", "DecoderSpec", "Shape", "build", "decoder", "read_shape"]

MAX_COLUMNS = 1 << 18  # of a matrix: far above any model, below what int32 sums of a row can hold

ACTIVATIONS: dict[str, Function] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True)
class Shape:
    """The sizes every decoder has. `inner` is the MLP's width, `positions` the config's max_position_embeddings."""

    vocab: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    positions: int


@dataclass(frozen=True, eq=False)
class DecoderSpec:
    """A decoder.

    Attributes:
        windows: per layer, keys a token sees; 0 means all before it.
        ropes: the sets of frequencies; `layer_ropes` says which one a layer uses.
        norm_offset: added to RMSNorm weights.
        qk_norms: names of the norms of each query and key head.
        sandwich: a norm after attention and after the MLP too, before each joins the residual.
        parallel: attention and MLP read the same norm and join the residual together.
        mlp: names of its matrices; three are gated (gate, up, down), two are not.
        attention_factor: multiplies q.k.
    """

    family: str
    shape: Shape
    context: int
    windows: tuple[int, ...]
    ropes: tuple[Rope, ...]
    layer_ropes: tuple[int, ...]
    function: Function
    eps: float
    tied: bool
    attention_factor: float
    embedding_factor: float = 1.0
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    norm_offset: float = 0.0
    qk_norms: tuple[str, str] | None = None
    sandwich: bool = False
    parallel: bool = False
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    out: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    final_norm: str = "model.norm"


def read_shape(config: Settings) -> Shape:
    """The sizes of a config, each within what the engine can hold; ModelError otherwise."""
    heads = config.integer("num_attention_heads", 1, 1024)
    width = config.integer("hidden_size", 2, 1 << 17)
    kv_heads = heads
    if config.raw("num_key_value_heads") is not None:
        kv_heads = config.integer("num_key_value_heads", 1, heads)
    if heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of num_attention_heads ({heads})")
    if config.raw("head_dim") is not None:
        head_dim = config.integer("head_dim", 2, 1024)
    elif width % heads or width // heads > 1024:
        raise config.error("hidden_size", f"a multiple of num_attention_heads ({heads}), at most 1024 for each head")
    else:
        head_dim = width // heads
    if head_dim % 2 or heads * head_dim > MAX_COLUMNS:
        raise ModelError(
            f"config.json: {heads} heads of {head_dim} columns; head_dim must be even, all of them <= {MAX_COLUMNS}"
        )
    return Shape(
        vocab=config.integer("vocab_size", 1, 1 << 22),
        width=width,
        inner=config.integer("intermediate_size", 1, MAX_COLUMNS),
        layers=config.integer("num_hidden_layers", 1, 1024),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        positions=config.integer("max_position_embeddings", 2, MAX_CONTEXT),
    )


def decoder(title: str, defaults: Mapping[str, Any], spec: Callable[[Settings], DecoderSpec]) -> Family:
    """A family of decoders; `spec` reads a config."""

    def make(config: Settings) -> Model:
        made = spec(config)
        return Model(made.family, {"text": build(made, read_transforms(config, made.shape.layers))})

    return Family(title, make, "ForCausalLM", defaults)


def build(spec: DecoderSpec, transforms: Transforms = NONE) -> Program:
    """The operations of a decoder, in order, and the tensors they read. Raises ModelError where a rotation's block does
    not divide a linear's width."""
    return _Builder(spec, transforms).program()


class _Builder(Builder):
    """Norms of q and k, rope, add, norms after a matrix, rotations and clips work in place."""

    def __init__(self, spec: DecoderSpec, transforms: Transforms) -> None:
        super().__init__(transforms)
        self.spec = spec

    def program(self) -> Program:
        spec, shape = self.spec, self.spec.shape
        embedding = self.matrix("model.embed_tokens.weight", shape.vocab, shape.width, "embedding")
        self.op("embed", ("ids",), "x", shape.width, weight=embedding, factor=spec.embedding_factor)
        for layer in range(shape.layers):
            self.begin_block()
            self.block(layer, f"model.layers.{layer}")
            self.end_block()
        self.normalize("x", "h", spec.final_norm)
        head = embedding if spec.tied else "lm_head.weight"
        self.weights.setdefault(head, Weight((shape.vocab, shape.width), "head"))
        bias = self.vector("lm_head.bias", shape.vocab) if spec.head_bias else ""
        self.op("linear", ("h",), "logits", shape.vocab, weight=head, bias=bias)
        return Program(
            family=spec.family,
            ops=tuple(self.ops),
            weights=self.weights,
            widths=self.widths,
            ropes=spec.ropes,
            blocks=tuple(self.blocks),
            vocab_size=shape.vocab,
            context=spec.context,
        )

    def block(self, layer: int, name: str) -> None:
        spec = self.spec
        self.normalize("x", "h", f"{name}.input_layernorm")
        self.rotate("h")
        self.attention(layer, f"{name}.self_attn")
        if spec.parallel:
            self.mlp(f"{name}.mlp", "z")
            self.op("add", ("y", "z"), "y", spec.shape.width)
            self.op("add", ("y", "x"), "x", spec.shape.width)
            return
        if spec.sandwich:
            self.normalize("y", "y", f"{name}.post_attention_layernorm")
        self.op("add", ("x", "y"), "x", spec.shape.width)
        self.normalize("x", "h", f"{name}.{'pre_feedforward' if spec.sandwich else 'post_attention'}_layernorm")
        self.rotate("h")
        self.mlp(f"{name}.mlp", "y")
        if spec.sandwich:
            self.normalize("y", "y", f"{name}.post_feedforward_layernorm")
        self.op("add", ("x", "y"), "x", spec.shape.width)

    def attention(self, layer: int, name: str) -> None:
        spec, shape = self.spec, self.spec.shape
        columns = {"q": shape.heads * shape.head_dim, "k": shape.kv_heads * shape.head_dim}
        columns["v"] = columns["k"]
        for part, width in columns.items():
            self.linear("h", part, f"{name}.{part}_proj", shape.width, width, spec.qkv_bias)
        self.clip(*columns)
        for part, norm in zip("qk", spec.qk_norms or (), strict=False):
            self.normalize(part, part, f"{name}.{norm}", shape.head_dim)
        for part, heads in (("q", shape.heads), ("k", shape.kv_heads)):
            rotation: dict[str, Any] = {"heads": heads, "head_dim": shape.head_dim, "rope": spec.layer_ropes[layer]}
            self.op("rope", (part,), part, columns[part], **rotation)
        self.op(
            "attention",
            ("q", "k", "v"),
            "a",
            columns["q"],
            layer=layer,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            window=spec.windows[layer],
            factor=spec.attention_factor,
        )
        self.rotate("a")
        self.linear("a", "y", f"{name}.{spec.out}", columns["q"], shape.width, spec.out_bias)
        self.clip("y")

    def mlp(self, name: str, output: str) -> None:
        spec, inner, width = self.spec, self.spec.shape.inner, self.spec.shape.width
        *into, back = spec.mlp
        buffers = ("gate", "up")[: len(into)]
        for buffer, part in zip(buffers, into, strict=True):
            self.linear("h", buffer, f"{name}.{part}", width, inner, spec.mlp_bias)
        self.clip(*buffers)
        self.op("gated" if len(into) == 2 else "activation", buffers, "inner", inner, function=spec.function)
        self.rotate("inner")
        self.linear("inner", output, f"{name}.{back}", inner, width, spec.mlp_bias)
        self.clip(output)

    def normalize(self, source: str, target: str, name: str, dim: int = 0) -> None:
        """`dim` columns at a time (a head); the whole width by default."""
        spec = self.spec
        dim = dim or spec.shape.width
        weight = self.vector(f"{name}.weight", dim)
        bias = self.vector(f"{name}.bias", dim) if spec.norm == "layernorm" else ""
        width = self.widths.get(target, dim)
        fields: dict[str, Any] = {"weight": weight, "bias": bias, "eps": spec.eps, "dim": dim}
        self.op(spec.norm, (source,), target, width, offset=spec.norm_offset, **fields)
