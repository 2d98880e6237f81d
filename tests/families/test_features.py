"""Each feature counts: switched off in our program, the logits move by more than 1 %. Parity alone would not show a
feature that the tiny models never exercise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny
from tercet import families
from tercet.program import Op, Program, Rope, interpreter

Tensors = dict[str, NDArray[np.float32]]
Switch = Callable[[Program, Tensors], tuple[Program, Tensors]]


def change(matches: Callable[[Op], bool], **fields: Any) -> Switch:
    """Sets fields of the operations that match."""

    def switch(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
        assert any(matches(op) for op in program.ops)
        return replace(program, ops=tuple(replace(op, **fields) if matches(op) else op for op in program.ops)), tensors

    return switch


def drop(matches: Callable[[Op], bool]) -> Switch:
    """Leaves out operations that work in place."""

    def switch(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
        dropped = [op for op in program.ops if matches(op)]
        assert dropped
        assert all(op.inputs == (op.output,) for op in dropped)
        return replace(program, ops=tuple(op for op in program.ops if not matches(op))), tensors

    return switch


def bias_of(part: str) -> Switch:
    return change(lambda op: op.bias.endswith(f"{part}.bias"), bias="")


def norm_of(part: str) -> Switch:
    return drop(lambda op: op.weight.endswith(f"{part}.weight"))


def kind(*kinds: str) -> Callable[[Op], bool]:
    return lambda op: op.kind in kinds


def ropes(make: Callable[[Program], tuple[Rope, ...]]) -> Switch:
    return lambda program, tensors: (replace(program, ropes=make(program)), tensors)


def plain(config: dict[str, Any], **changes: Any) -> Switch:
    """The frequencies of the same model with another config."""
    return ropes(lambda _: families.model({**config, **changes}).text.ropes)


def other_head(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """A head of its own where the model's is the embedding."""
    assert program.ops[-1].weight == "model.embed_tokens.weight"
    untied = replace(program.ops[-1], weight="lm_head.weight")
    own = tensors["model.embed_tokens.weight"][::-1].copy()
    return replace(program, ops=(*program.ops[:-1], untied)), {**tensors, "lm_head.weight": own}


def first_kv_head(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """All query heads read the first KV head."""
    attention = next(op for op in program.ops if op.kind == "attention")
    assert attention.heads > attention.kv_heads > 1
    rows = attention.head_dim
    shared = {
        name: np.tile(tensor[:rows], (attention.kv_heads, 1))
        for name, tensor in tensors.items()
        if "k_proj.weight" in name or "v_proj.weight" in name
    }
    return program, {**tensors, **shared}


def sequential(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """Phi's MLP reading the norm of x + attention, not the norm of x."""
    ops: list[Op] = []
    for op in program.ops:
        if op.weight.endswith("fc1.weight"):
            norm = next(earlier for earlier in reversed(ops) if earlier.kind == "layernorm" and earlier.output == "h")
            ops += [Op("add", ("x", "y"), "w"), replace(norm, inputs=("w",))]
        ops.append(op)
    assert len(ops) > len(program.ops)
    return replace(program, ops=tuple(ops)), tensors


def rope_everywhere(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """RoPE in the layers that have none."""
    rope = next(op for op in program.ops if op.kind == "rope")
    ops: list[Op] = []
    for op in program.ops:
        if op.kind == "attention" and not any(earlier.kind == "rope" for earlier in ops[-4:]):
            for part, heads in (("q", op.heads), ("k", op.kv_heads)):
                ops.append(replace(rope, inputs=(part,), output=part, heads=heads))
        ops.append(op)
    assert len(ops) > len(program.ops)
    return replace(program, ops=tuple(ops)), tensors


def norm_before_rope(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    ops = list(program.ops)
    for at, op in enumerate(ops):
        if op.kind == "rope" and ops[at + 2].kind == "rmsnorm":
            ops[at], ops[at + 2] = ops[at + 2], ops[at]
    assert tuple(ops) != program.ops
    return replace(program, ops=tuple(ops)), tensors


def unfolded(part: str) -> Switch:
    """Without the multiplier of a tensor."""

    def switch(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
        factor = {"o_proj": 0.4, "down_proj": 0.4, "model.norm": 0.5 if program.family == "cohere" else 2.0}[part]
        return program, {name: t / factor if f"{part}.weight" in name else t for name, t in tensors.items()}

    return switch


def reordered(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """Queries and keys whose columns are in another order than RoPE's pairs."""
    size = next(op.head_dim for op in program.ops if op.kind == "rope")
    order = np.arange(size).reshape(2, -1).T.ravel()

    def turned(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values.reshape(-1, size, *values.shape[1:])[:, order].reshape(values.shape)

    return program, {name: turned(t) if "q_proj" in name or "k_proj" in name else t for name, t in tensors.items()}


def whole_heads(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    size = next(op.head_dim for op in program.ops if op.kind == "rope")
    more = np.resize(program.ropes[0].inv_freq, size // 2)
    assert more.size > program.ropes[0].inv_freq.size
    return replace(program, ropes=(replace(program.ropes[0], inv_freq=more),)), tensors


def one_norm(program: Program, tensors: Tensors) -> tuple[Program, Tensors]:
    """The MLP reading what attention reads."""
    kept = tuple(op for op in program.ops if "post_attention_layernorm" not in op.weight)
    assert len(kept) < len(program.ops)
    return replace(program, ops=kept), tensors


SHORT = [1.0 + i for i in range(8)]
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 32}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
LONG = {
    **YARN,
    "rope_type": "longrope",
    "original_max_position_embeddings": 64,
    "short_factor": SHORT,
    "long_factor": [1.0] * 8,
}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
BIASED = {"attention_bias": True, "mlp_bias": True}

AFTER = ("olmo2", "olmo3", "exaone4", "glm4")
OLMO3 = {"full_attention": {**YARN, "rope_theta": 500000.0}, "sliding_attention": {**DEFAULT, "rope_theta": 500000.0}}

CASES: dict[str, tuple[str, dict[str, Any], Switch]] = {
    **{f"llama-{part}-bias": ("llama", BIASED, bias_of(f"{part}_proj")) for part in "qkvo"},
    **{f"llama-{part}-bias": ("llama", BIASED, bias_of(f"{part}_proj")) for part in ("gate", "up", "down")},
    "llama-rope": ("llama", {}, drop(kind("rope"))),
    "llama-gqa": ("llama", {}, first_kv_head),
    "llama-eps": ("llama", {"rms_norm_eps": 0.03}, change(kind("rmsnorm"), eps=1e-6)),
    "llama-silu": ("llama", {}, change(kind("gated"), function="gelu")),
    "llama-tied": ("llama", {}, other_head),
    "llama-linear": ("llama", {"rope_parameters": LINEAR}, plain(tiny.config("llama"))),
    "llama-llama3": ("llama", {"rope_parameters": LLAMA3}, plain(tiny.config("llama"))),
    "llama-yarn": ("llama", {"rope_parameters": YARN}, plain(tiny.config("llama"))),
    "llama-yarn-factor": (
        "llama",
        {"rope_parameters": YARN},
        ropes(lambda program: (replace(program.ropes[0], factor=1.0),)),
    ),
    "llama-longrope": (
        "llama",
        {"rope_parameters": LONG},
        plain(tiny.config("llama", rope_parameters={**LONG, "short_factor": [1.0] * 8})),
    ),
    "llama-longrope-factor": (
        "llama",
        {"rope_parameters": LONG},
        ropes(lambda program: (replace(program.ropes[0], factor=1.0),)),
    ),
    "granite-residual": ("granite", {}, unfolded("o_proj")),
    "granite-residual-mlp": ("granite", {}, unfolded("down_proj")),
    "granite-logits": ("granite", {}, unfolded("model.norm")),
    "cohere-logits": ("cohere", {}, unfolded("model.norm")),
    **{f"{f}-pairs": (f, {}, reordered) for f in ("cohere", "cohere2", "ernie4_5", "helium", "glm", "glm4")},
    "mistral-window": ("mistral", {}, change(kind("attention"), window=0)),
    "mistral-window-by-one": ("mistral", {}, change(kind("attention"), window=tiny.WINDOW + 1)),
    **{f"qwen2-{part}-bias": ("qwen2", {}, bias_of(f"{part}_proj")) for part in "qkv"},
    "qwen2-window-of-some-layers": ("qwen2", {}, change(kind("attention"), window=tiny.WINDOW)),
    "qwen2-no-window-at-all": ("qwen2", {}, change(kind("attention"), window=0)),
    "qwen3-q-norm": ("qwen3", {}, norm_of("q_norm")),
    "qwen3-k-norm": ("qwen3", {}, norm_of("k_norm")),
    "gemma3-q-norm": ("gemma3_text", {}, norm_of("q_norm")),
    "gemma3-k-norm": ("gemma3_text", {}, norm_of("k_norm")),
    "gemma3-norm-after-attention": ("gemma3_text", {}, norm_of("post_attention_layernorm")),
    "gemma3-norm-after-mlp": ("gemma3_text", {}, norm_of("post_feedforward_layernorm")),
    "gemma3-norm-offset": ("gemma3_text", {}, change(kind("rmsnorm"), offset=0.0)),
    "gemma3-embedding-scale": ("gemma3_text", {}, change(kind("embed"), factor=1.0)),
    "gemma3-query-scalar": ("gemma3_text", {}, change(kind("attention"), factor=32**-0.5)),
    "gemma3-two-ropes": ("gemma3_text", {}, ropes(lambda program: (program.ropes[1], program.ropes[1]))),
    "gemma3-rope-of-layers": ("gemma3_text", {}, ropes(lambda program: program.ropes[::-1])),
    "gemma3-window": ("gemma3_text", {}, change(kind("attention"), window=0)),
    "gemma3-full-layers": ("gemma3_text", {}, change(kind("attention"), window=tiny.WINDOW)),
    "gemma3-gelu": ("gemma3_text", {}, change(kind("gated"), function="silu")),
    **{f"phi-{part}-bias": ("phi", {}, bias_of(part)) for part in ("q_proj", "k_proj", "v_proj", "dense")},
    **{f"phi-{part}-bias": ("phi", {}, bias_of(part)) for part in ("fc1", "fc2", "lm_head", "layernorm")},
    "phi-q-norm": ("phi", {"qk_layernorm": True}, norm_of("q_layernorm")),
    "phi-k-norm": ("phi", {"qk_layernorm": True}, norm_of("k_layernorm")),
    "phi-mean": ("phi", {}, change(kind("layernorm"), kind="rmsnorm")),
    "phi-partial-rotary": ("phi", {}, plain(tiny.config("phi", partial_rotary_factor=1.0))),
    "phi-parallel": ("phi", {}, sequential),
    **{
        f"{f}-{part}-norm": (f, {}, norm_of(f"{part}_norm"))
        for f in ("olmo2", "exaone4", "hunyuan_v1_dense")
        for part in "qk"
    },
    **{f"{f}-after-attention": (f, {}, norm_of("post_attention_layernorm")) for f in AFTER},
    **{f"{f}-after-mlp": (f, {}, norm_of("post_feedforward_layernorm")) for f in AFTER},
    **{f"{f}-no-rope-layers": (f, {}, rope_everywhere) for f in ("smollm3", "exaone4", "cohere2")},
    **{
        f"{f}-window": (f, {}, change(kind("attention"), window=0))
        for f in ("exaone4", "cohere2", "ministral", "olmo3", "starcoder2")
    },
    "olmo3-two-ropes": ("olmo3", {"rope_parameters": OLMO3}, ropes(lambda program: program.ropes[:1] * 2)),
    "olmo-clip": ("olmo", {}, drop(kind("clip"))),
    "olmo-mean": ("olmo", {}, change(kind("layernorm"), kind="rmsnorm")),
    "hunyuan-norm-after-rope": ("hunyuan_v1_dense", {}, norm_before_rope),
    "hunyuan-alpha": ("hunyuan_v1_dense", {}, plain(tiny.config("hunyuan_v1_dense", rope_parameters=DEFAULT))),
    "granite-embedding": ("granite", {}, change(kind("embed"), factor=1.0)),
    "granite-scores": ("granite", {}, change(kind("attention"), factor=0.25)),
    "gemma-offset": ("gemma", {}, change(kind("rmsnorm"), offset=0.0)),
    "gemma-embedding-scale": ("gemma", {}, change(kind("embed"), factor=1.0)),
    "glm-partial-rotary": ("glm", {}, whole_heads),
    "stablelm-partial-rotary": ("stablelm", {}, whole_heads),
    "gpt_neox-partial-rotary": ("gpt_neox", {}, whole_heads),
    "gpt_neox-second-norm": ("gpt_neox", {}, one_norm),
    "phi3-partial-rotary": ("phi3", {}, whole_heads),
    **{f"seed_oss-{part}-bias": ("seed_oss", {}, bias_of(f"{part}_proj")) for part in "qkv"},
    **{
        f"starcoder2-{part}-bias": ("starcoder2", {}, bias_of(f"{part}_proj")) for part in ("q", "v", "o", "up", "down")
    },
    **{f"internlm3-{part}-bias": ("internlm3", {}, bias_of(f"{part}_proj")) for part in ("q", "v", "o", "up", "down")},
    "phi-gelu": ("phi", {}, change(kind("activation"), function="silu")),
}


def moved(family: str, overrides: dict[str, Any], switch: Switch) -> float:
    """How far the logits move, relative to the largest."""
    _, config, tensors = tiny.model(family, **overrides)
    ids = tiny.ids()
    program = families.model(config).text
    before = interpreter.logits(program, tensors, ids)
    after = interpreter.logits(*switch(program, tensors), ids)
    return float(np.abs(after - before).max() / np.abs(before).max())


@pytest.mark.parametrize("case", CASES)
def test_switched_off_it_shows(case: str) -> None:
    assert moved(*CASES[case]) > 1e-2


def test_the_two_gelus_differ() -> None:
    """They never differ by more than 5e-4, so this one shows at 1e-4; parity of the same model holds at 1e-5."""
    exact = change(kind("activation"), function="gelu")
    assert moved("phi", {}, exact) > 1e-4
    made, config, tensors = tiny.model("phi")
    wanted = tiny.reference(made, tiny.ids())
    found = interpreter.logits(families.model(config).text, tensors, tiny.ids())
    assert np.abs(found - wanted).max() / np.abs(wanted).max() < 1e-5
