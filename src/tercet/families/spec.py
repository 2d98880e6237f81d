"""What a decoder can be: the fields in which families differ, and the sizes that all of them have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tercet.errors import ModelError
from tercet.families.rope import MAX_CONTEXT, make_rope, parameters
from tercet.families.settings import Settings
from tercet.program import Function, Rope, Stored

__all__ = ["ACTIVATIONS", "MAX_COLUMNS", "DecoderSpec", "Shape", "plain", "read_shape"]

MAX_COLUMNS = 1 << 18  # of a matrix: far above any model, below what int32 sums of a row can hold
NO_ROPE = -1

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
        ropes: the sets of frequencies; `layer_ropes` says which one a layer uses, -1: it has no RoPE.
        attention_factor: multiplies q.k.
        norm_bias: whether LayerNorms have one.
        norm_offset: added to RMSNorm weights.
        qk_norms: names of the norms of q and k.
        qk_norm: what one runs over: a head, before or after RoPE, or the whole of q or k.
        norms: where a sequential block has them: before attention and MLP, after them on what joins the residual, both.
        parallel: norms of a block whose attention and MLP read the same x: one for both, or two; 0: a sequential block.
        qkv_limit: q, k and v are clipped to it; 0: they are not.
        mlp: names of its matrices; three are gated (gate, up, down), two are not.
        stored: by the module's name, in a block ("self_attn.q_proj") or whole ("lm_head"): where its tensors are in
            the original, named likewise.
        root: what the original's names begin with in place of "model.".
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
    norm_bias: bool = True
    norm_offset: float = 0.0
    qk_norms: tuple[str, str] | None = None
    qk_norm: Literal["head", "head after rope", "whole"] = "head"
    norms: Literal["before", "after", "both"] = "before"
    parallel: Literal[0, 1, 2] = 0
    qkv_bias: bool = False
    qkv_limit: float = 0.0
    out_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    out: str = "o_proj"
    mlp: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    final_norm: str = "model.norm"
    stored: Mapping[str, Stored] = field(default_factory=dict)
    root: str = "model."


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


def plain(
    family: str,
    config: Settings,
    *,
    eps: str = "rms_norm_eps",
    partial: bool = False,
    rope: Settings | None = None,
    **fields: Any,
) -> DecoderSpec:
    """A decoder as Llama is one, but for `fields`: one RoPE for all layers, no windows, no biases.

    Args:
        eps: the config's word for that of the norms.
        partial: whether each head may be rotated in part.
        rope: its settings; by default those of the config.
    """
    shape = read_shape(config)
    settings = parameters(config) if rope is None else rope
    frequencies, context = make_rope(settings, shape.head_dim, shape.positions, partial=partial)
    made: dict[str, Any] = {
        "context": context,
        "windows": (0,) * shape.layers,
        "ropes": (frequencies,),
        "layer_ropes": (0,) * shape.layers,
        "function": config.choice("hidden_act", ACTIVATIONS),
        "eps": config.number(eps, 0, 1),
        "tied": config.flag("tie_word_embeddings"),
        "attention_factor": shape.head_dim**-0.5,
    }
    return DecoderSpec(family=family, shape=shape, **(made | fields))
