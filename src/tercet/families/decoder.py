"""Decoder-only transformers as data: one `DecoderSpec`, one `build`, for every family.

    x = embed(ids)
    per block, sequential:  x += [norm](attention([norm](x)));  x += [norm](mlp([norm](x)))    one of both norms or both
               parallel:    x += attention(h) + mlp(g), h = norm(x), g = h or another norm(x)
    logits = head(norm(x))

What differs between families is a field of the spec (`tercet.families.spec`); a family's file only says how its config
words map to the fields. Tensor names are those of Llama in transformers, whatever an original calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tercet.errors import ModelError
from tercet.families.builder import Builder
from tercet.families.family import Family
from tercet.families.settings import Settings
from tercet.families.spec import NO_ROPE, DecoderSpec
from tercet.families.transforms import NONE, Transforms, read_transforms
from tercet.program import Model, Original, Program, Stored, Weight
from tercet.program.hadamard import widest_block

__all__ = ["build", "decoder"]

# Names of the norms in front of attention, behind it, in front of the MLP, behind it; None: there is none.
NORMS: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "before": ("input_layernorm", None, "post_attention_layernorm", None),
    "after": (None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "both": (
        "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm",
    ),
}  # fmt: skip


def decoder(
    title: str, defaults: Mapping[str, Any], spec: Callable[[Settings], DecoderSpec], unused: tuple[str, ...] = ()
) -> Family:
    """A family of decoders; `spec` reads a config."""

    def make(config: Settings) -> Model:
        made = spec(config)
        program = build(made, read_transforms(config, made.shape.layers))
        return Model(made.family, {"text": program}, original=original(made, program))

    return Family(title, make, "ForCausalLM", defaults, unused=unused)


def original(spec: DecoderSpec, program: Program) -> Original:
    """Where the original keeps the tensors of the program that `spec` gave."""
    names = [*program.weights, "lm_head.weight"]  # a tied head may be stored all the same
    found = {name: stored for name in names if (stored := _stored(spec.stored, name)) is not None}
    return Original(found, (spec.root, ""))


def _stored(modules: Mapping[str, Stored], name: str) -> Stored | None:
    module, _, parameter = name.rpartition(".")
    before, inner = "", module
    if module.startswith("model.layers."):
        layer, _, inner = module.removeprefix("model.layers.").partition(".")
        before = f"model.layers.{layer}."
    if inner not in modules:
        return None
    where = modules[inner]
    return replace(where, name=f"{before}{where.name}.{parameter}" if where.name else "")


def build(spec: DecoderSpec, transforms: Transforms = NONE) -> Program:
    """The operations of a decoder, in order, and the tensors they read. Raises ModelError where a rotation's block does
    not divide a linear's width, or the residual stream cannot be rotated."""
    if transforms.stream and (spec.norm != "rmsnorm" or spec.norms != "before" or spec.qkv_limit):
        raise ModelError(f"config.json: tercet: stream is set, but {spec.family}'s residual stream cannot be rotated")
    return _Builder(spec, transforms).program()


class _Builder(Builder):
    """Norms of q and k, rope, add, norms after a matrix, rotations and clips work in place."""

    def __init__(self, spec: DecoderSpec, transforms: Transforms) -> None:
        super().__init__(transforms)
        self.spec = spec

    def program(self) -> Program:
        spec, shape = self.spec, self.spec.shape
        embedding = self.matrix("model.embed_tokens.weight", shape.vocab, shape.width, "embedding")
        turned = widest_block(shape.width) if self.table else 0
        self.op("embed", ("ids",), "x", shape.width, weight=embedding, factor=spec.embedding_factor, dim=turned)
        self.turn("x")
        for layer in range(shape.layers):
            self.begin_block()
            if spec.parallel:
                self.parallel(layer, f"model.layers.{layer}")
            else:
                self.sequential(layer, f"model.layers.{layer}")
            self.end_block()
        self.turn("x")
        self.normalize("x", "h", spec.final_norm)
        if self.table:
            self.op("rotate", ("h",), "h", shape.width, dim=turned)
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

    def parallel(self, layer: int, name: str) -> None:
        width = self.spec.shape.width
        source = self.read(f"{name}.input_layernorm")
        self.attention(layer, f"{name}.self_attn", source)
        if self.spec.parallel == 2:
            source = self.read(f"{name}.post_attention_layernorm")
        self.mlp(f"{name}.mlp", source, "z")
        self.op("add", ("y", "z"), "y", width)
        self.op("add", ("y", "x"), "x", width)

    def sequential(self, layer: int, name: str) -> None:
        first, second, third, fourth = (norm and f"{name}.{norm}" for norm in NORMS[self.spec.norms])
        self.attention(layer, f"{name}.self_attn", self.read(first))
        self.join(second)
        self.mlp(f"{name}.mlp", self.read(third), "y")
        self.join(fourth)

    def read(self, norm: str | None) -> str:
        """The buffer that the next linears read: x or its norm, rotated where the block's are."""
        if norm is None:
            return self.rotate("x", "h")
        self.normalize("x", "h", norm)
        return self.rotate("h")

    def join(self, norm: str | None) -> None:
        """The sum of the residual and y."""
        if norm is not None:
            self.normalize("y", "y", norm)
        self.op("add", ("x", "y"), "x", self.spec.shape.width)

    def attention(self, layer: int, name: str, source: str) -> None:
        spec, shape = self.spec, self.spec.shape
        columns = {"q": shape.heads * shape.head_dim, "k": shape.kv_heads * shape.head_dim}
        columns["v"] = columns["k"]
        for part, width in columns.items():
            self.linear(source, part, f"{name}.{part}_proj", shape.width, width, spec.qkv_bias)
        self.clip(*columns)
        for part in columns if spec.qkv_limit else ():
            self.op("clip", (part,), part, columns[part], limit=spec.qkv_limit)
        if spec.qk_norm != "head after rope":
            self.qk_norms(name, columns)
        rope = spec.layer_ropes[layer]
        for part, heads in (("q", shape.heads), ("k", shape.kv_heads)) if rope != NO_ROPE else ():
            self.op("rope", (part,), part, columns[part], heads=heads, head_dim=shape.head_dim, rope=rope)
        if spec.qk_norm == "head after rope":
            self.qk_norms(name, columns)
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

    def qk_norms(self, name: str, columns: Mapping[str, int]) -> None:
        for part, norm in zip("qk", self.spec.qk_norms or (), strict=False):
            whole = self.spec.qk_norm == "whole"
            self.normalize(part, part, f"{name}.{norm}", columns[part] if whole else self.spec.shape.head_dim)

    def mlp(self, name: str, source: str, output: str) -> None:
        spec, inner, width = self.spec, self.spec.shape.inner, self.spec.shape.width
        *into, back = spec.mlp
        buffers = ("gate", "up")[: len(into)]
        for buffer, part in zip(buffers, into, strict=True):
            self.linear(source, buffer, f"{name}.{part}", width, inner, spec.mlp_bias)
        self.clip(*buffers)
        self.op("gated" if len(into) == 2 else "activation", buffers, "inner", inner, function=spec.function)
        self.rotate("inner", inner=True)
        self.linear("inner", output, f"{name}.{back}", inner, width, spec.mlp_bias)
        self.clip(output)

    def normalize(self, source: str, target: str, name: str, dim: int = 0) -> None:
        """`dim` columns at a time (a head); the whole width by default."""
        spec = self.spec
        dim = dim or spec.shape.width
        weight = self.vector(f"{name}.weight", dim)
        bias = self.vector(f"{name}.bias", dim) if spec.norm == "layernorm" and spec.norm_bias else ""
        width = self.widths.get(target, dim)
        fields: dict[str, Any] = {"weight": weight, "bias": bias, "eps": spec.eps, "dim": dim}
        self.op(spec.norm, (source,), target, width, offset=spec.norm_offset, **fields)
