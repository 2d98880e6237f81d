"""Transformers that turn a picture or a text into one row, as data: one `TowerSpec`, one `build`, for every family.

    x = linear(patches) or embed(ids);  [class row in front];  x += positions;  [x = norm(x)]
    per block:  x += attention(norm(x));  x += mlp(norm(x))
    embedding = [head](norm(one row of x))                               the first, the last, the end of the text
             or m + mlp(norm(m)), m = attention(probe, norm(x))           pooled, SigLIP's pictures

The row is taken before the norm, which is the same and less work. Tensor names are those of transformers' state dicts,
but for the pooling's q, k and v, which are one matrix there (`tercet.sources.views` parts them).
"""

from __future__ import annotations

from dataclasses import dataclass

from tercet.errors import ModelError
from tercet.families.builder import Builder
from tercet.families.settings import Settings
from tercet.families.spec import ACTIVATIONS, MAX_COLUMNS
from tercet.families.transforms import NONE, Transforms, read_transforms
from tercet.program import Function, Model, Picture, Program, Row

__all__ = ["Head", "Input", "Layers", "TowerSpec", "build", "pair", "read_layers", "read_patches", "read_tokens"]

FUNCTIONS: dict[str, Function] = {**ACTIVATIONS, "quick_gelu": "quick_gelu"}
MAX_POSITIONS = 1 << 16
CHANNELS = 3


@dataclass(frozen=True)
class Layers:
    """The blocks of a tower. `inner` is the MLP's width, `eps` that of all its norms."""

    width: int
    inner: int
    count: int
    heads: int
    function: Function
    eps: float


@dataclass(frozen=True)
class Input:
    """What a tower reads: tokens of a vocabulary, or patches of some columns where that is 0.

    Attributes:
        length: the longest text, or the patches of a picture.
        biased: whether the patch embedding has a bias.
        class_row: whether a learned row stands in front of the patches.
    """

    length: int
    vocab: int = 0
    columns: int = 0
    biased: bool = False
    class_row: bool = False


@dataclass(frozen=True)
class Head:
    """From the last block's rows to the embedding.

    Attributes:
        norm: name of the last norm.
        row, token: which row, as in `tercet.program.Op`; ignored where pooled.
        projection: name of the last linear; "" where there is none.
        dim: columns of the embedding.
        pooled: attention with a learned probe for its only query, and an MLP.
    """

    norm: str
    dim: int
    row: Row = "first"
    token: int = -1
    projection: str = ""
    biased: bool = False
    pooled: bool = False


@dataclass(frozen=True)
class TowerSpec:
    """A tower.

    Attributes:
        name: what its tensors' names begin with.
        first_norm: of a norm in front of the first block; "" where there is none.
        causal: whether a token sees only those before it.
    """

    family: str
    name: str
    layers: Layers
    input: Input
    head: Head
    first_norm: str = ""
    causal: bool = False


def read_layers(config: Settings) -> Layers:
    """The blocks of a config, each number within what the engine can hold; ModelError otherwise."""
    heads = config.integer("num_attention_heads", 1, 1024)
    width = config.integer("hidden_size", 2, 1 << 17)
    if width % (2 * heads) or width // heads > 1024:
        raise config.error(
            "hidden_size", f"an even multiple of num_attention_heads ({heads}), at most 1024 for each head"
        )
    return Layers(
        width=width,
        inner=config.integer("intermediate_size", 1, MAX_COLUMNS),
        count=config.integer("num_hidden_layers", 1, 1024),
        heads=heads,
        function=config.choice("hidden_act", FUNCTIONS),
        eps=config.number("layer_norm_eps", 0, 1),
    )


def read_tokens(config: Settings) -> Input:
    """What a text tower reads."""
    return Input(
        length=config.integer("max_position_embeddings", 1, MAX_POSITIONS),
        vocab=config.integer("vocab_size", 1, 1 << 22),
    )


def read_patches(config: Settings, *, biased: bool, class_row: bool) -> tuple[Input, Picture]:
    """What an image tower reads: patches, and the picture they are of."""
    config.integer("num_channels", CHANNELS, CHANNELS)
    image = config.integer("image_size", 1, 1 << 14)
    patch = config.integer("patch_size", 1, image)
    length = (image // patch) ** 2
    if length > MAX_POSITIONS or CHANNELS * patch**2 > MAX_COLUMNS:
        raise ModelError(
            f"config.json: vision_config: {length} patches of {patch} x {patch} pixels; "
            f"at most {MAX_POSITIONS} patches of {MAX_COLUMNS // CHANNELS} pixels are supported"
        )
    columns = CHANNELS * patch**2
    return Input(length=length, columns=columns, biased=biased, class_row=class_row), Picture(image, patch)


def pair(config: Settings, image: TowerSpec, text: TowerSpec, picture: Picture, bias: str) -> Model:
    """An image-text model of two towers, each with what `config` says of its linears."""
    parts = {}
    for part, spec in (("image", image), ("text", text)):
        parts[part] = build(spec, read_transforms(config, spec.layers.count + spec.head.pooled, part))
    return Model(image.family, parts, picture, "logit_scale", bias)


def build(spec: TowerSpec, transforms: Transforms = NONE) -> Program:
    """The operations of a tower, in order, and the tensors they read. Raises ModelError as that of decoders."""
    for word in ("stream", "table"):
        if getattr(transforms, word):
            raise ModelError(f"config.json: tercet: {word} is set, but a tower's cannot be rotated")
    return _Builder(spec, transforms).program()


class _Builder(Builder):
    """Positions, the first norm and sums work in place."""

    def __init__(self, spec: TowerSpec, transforms: Transforms) -> None:
        super().__init__(transforms)
        self.spec = spec

    def program(self) -> Program:
        spec = self.spec
        self.embeddings(f"{spec.name}.embeddings")
        for layer in range(spec.layers.count):
            self.begin_block()
            self.block(layer, f"{spec.name}.encoder.layers.{layer}")
            self.end_block()
        if spec.head.pooled:
            self.normalize("x", "h", spec.head.norm)
            self.begin_block()
            self.pool(f"{spec.name}.head")
            self.end_block()
        else:
            self.take_row()
        return Program(
            family=spec.family,
            ops=tuple(self.ops),
            weights=self.weights,
            widths=self.widths,
            ropes=(),
            blocks=tuple(self.blocks),
            vocab_size=spec.input.vocab,
            context=spec.input.length,
        )

    def embeddings(self, name: str) -> None:
        given, width = self.spec.input, self.spec.layers.width
        positions = given.length + given.class_row
        if given.vocab:
            table = self.matrix(f"{name}.token_embedding.weight", given.vocab, width, "embedding")
            self.op("embed", ("ids",), "x", width, weight=table)
        else:
            target = "y" if given.class_row else "x"
            self.linear(
                "patches", target, f"{name}.patch_embedding", given.columns, width, given.biased, role="embedding"
            )
        if given.class_row:
            self.op("prepend", ("y",), "x", width, weight=self.vector(f"{name}.class_embedding", width))
        table = self.matrix(f"{name}.position_embedding.weight", positions, width, "position")
        self.op("position", ("x",), "x", width, weight=table)
        if self.spec.first_norm:
            self.normalize("x", "x", self.spec.first_norm)

    def block(self, layer: int, name: str) -> None:
        width = self.spec.layers.width
        self.normalize("x", "h", f"{name}.layer_norm1")
        self.rotate("h")
        for part in "qkv":
            self.linear("h", part, f"{name}.self_attn.{part}_proj", width, width, True)
        self.clip(*"qkv")
        self.attention(layer, self.spec.causal)
        self.output("a", "y", f"{name}.self_attn.out_proj", width)
        self.op("add", ("x", "y"), "x", width)
        self.normalize("x", "h", f"{name}.layer_norm2")
        self.mlp(f"{name}.mlp")
        self.op("add", ("x", "y"), "x", width)

    def take_row(self) -> None:
        head, width = self.spec.head, self.spec.layers.width
        inputs = ("x", "ids") if head.row == "end" else ("x",)
        self.op("pick", inputs, "y", width, row=head.row, token=head.token)
        self.normalize("y", "h", head.norm)
        self.linear("h", "embedding", head.projection, width, head.dim, head.biased, role="head")

    def pool(self, name: str) -> None:
        width = self.spec.layers.width
        self.op("constant", ("h",), "x", width, weight=self.vector(f"{name}.probe", width))
        self.rotate("x")
        self.rotate("h")
        self.linear("x", "q", f"{name}.attention.q_proj", width, width, True)
        for part in "kv":
            self.linear("h", part, f"{name}.attention.{part}_proj", width, width, True)
        self.clip(*"qkv")
        self.attention(self.spec.layers.count, causal=False)
        self.output("a", "x", f"{name}.attention.out_proj", width)
        self.normalize("x", "h", f"{name}.layernorm")
        self.mlp(f"{name}.mlp")
        self.op("add", ("x", "y"), "embedding", width)

    def attention(self, layer: int, causal: bool) -> None:
        width, heads = self.spec.layers.width, self.spec.layers.heads
        size = width // heads
        self.op(
            "attention",
            ("q", "k", "v"),
            "a",
            width,
            layer=layer,
            heads=heads,
            kv_heads=heads,
            head_dim=size,
            factor=size**-0.5,
            causal=causal,
        )

    def mlp(self, name: str) -> None:
        width, inner = self.spec.layers.width, self.spec.layers.inner
        self.rotate("h")
        self.linear("h", "up", f"{name}.fc1", width, inner, True)
        self.clip("up")
        self.op("activation", ("up",), "inner", inner, function=self.spec.layers.function)
        self.output("inner", "y", f"{name}.fc2", inner)

    def output(self, source: str, target: str, name: str, columns: int) -> None:
        """The linear back to the stream."""
        self.rotate(source)
        self.linear(source, target, name, columns, self.spec.layers.width, True)
        self.clip(target)

    def normalize(self, source: str, target: str, name: str) -> None:
        width = self.spec.layers.width
        weight, bias = self.vector(f"{name}.weight", width), self.vector(f"{name}.bias", width)
        self.op("layernorm", (source,), target, width, weight=weight, bias=bias, eps=self.spec.layers.eps, dim=width)
