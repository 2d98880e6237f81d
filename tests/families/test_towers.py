"""Both towers, run by the interpreter, against transformers; and each feature of theirs counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny_towers as tiny
from tercet import families
from tercet.program import Model, Op, Program, interpreter
from tercet.program.patches import patches

GELU = {"hidden_act": "gelu"}
TANH = {"hidden_act": "gelu_pytorch_tanh"}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "clip": ("clip", {}),
    "clip-gelu": ("clip", {"text": GELU, "vision": GELU}),
    "clip-gelu-tanh": ("clip", {"text": TANH, "vision": TANH}),
    "clip-eps": ("clip", {"text": {"layer_norm_eps": 0.03}, "vision": {"layer_norm_eps": 0.1}}),
    "clip-legacy-end": ("clip", {"text": {"eos_token_id": 2}}),
    "clip-whole-patches": ("clip", {"vision": {"image_size": 24}}),
    "siglip": ("siglip", {}),
    "siglip-gelu": ("siglip", {"text": GELU, "vision": GELU}),
    "siglip-eps": ("siglip", {"text": {"layer_norm_eps": 0.03}, "vision": {"layer_norm_eps": 0.1}}),
    "clip-one-layer": ("clip", {"text": {"num_hidden_layers": 1}, "vision": {"num_hidden_layers": 3}}),
}


def found(towers: Model, tensors: dict[str, NDArray[np.float32]], seed: int = 0) -> tuple[Any, Any]:
    """Our embeddings of the same pictures and texts that `tiny.reference` is given."""
    pictures = patches(tiny.pixels(size=towers.pixels.size, seed=seed), towers.pixels.patch)
    texts = tiny.texts(length=towers.text.context, seed=seed)
    return interpreter.embeddings(towers.image, tensors, pictures), interpreter.embeddings(towers.text, tensors, texts)


def relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("case", CASES)
def test_embeddings_are_those_of_transformers(case: str) -> None:
    family, parts = CASES[case]
    made, config, tensors = tiny.model(family, **parts)
    towers = families.model(config)
    pixels, texts = tiny.pixels(size=towers.pixels.size), tiny.texts(length=towers.text.context)
    image, text, logits = tiny.reference(made, pixels, texts)
    assert logits.std() >= 1
    assert min(tiny.peak(made, pixels, texts)) > 0.45

    assert set(towers.weights) == set(tensors)
    assert {name: weight.shape for name, weight in towers.weights.items()} == {n: t.shape for n, t in tensors.items()}
    assert towers.image.widths["embedding"] == image.shape[1] == text.shape[1]
    ours = found(towers, tensors)
    assert relative(ours[0], image) < 1e-5
    assert relative(ours[1], text) < 1e-5
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in ours]
    bias = tensors[towers.bias][0] if towers.bias else 0
    assert np.abs(np.exp(tensors[towers.scale][0]) * units[0] @ units[1].T + bias - logits).max() < 1e-3


def test_short_texts_are_texts() -> None:
    made, config, tensors = tiny.model("clip")
    ids = tiny.texts(length=5)
    wanted = tiny.reference(made, tiny.pixels(), ids)[1]
    assert relative(interpreter.embeddings(families.model(config).text, tensors, ids), wanted) < 1e-5


def test_a_text_without_an_end_is_taken_at_its_first_token() -> None:
    made, config, tensors = tiny.model("clip")
    ids = tiny.texts() % tiny.END
    wanted = tiny.reference(made, tiny.pixels(), ids)[1]
    assert relative(interpreter.embeddings(families.model(config).text, tensors, ids), wanted) < 1e-5


@pytest.mark.parametrize(
    ("family", "tower", "saves"),
    [("clip", "image", True), ("clip", "text", False), ("siglip", "image", False), ("siglip", "text", True)],
)
def test_behind_the_last_attention_one_row_is_enough(family: str, tower: str, saves: bool) -> None:
    _, config, tensors = tiny.model(family)
    towers = families.model(config)
    program = towers.parts[tower]
    narrow = families.narrowed(program)
    assert (narrow is not program) == saves
    index = ("image", "text").index(tower)
    assert relative(found(tiny.with_part(towers, tower, narrow), tensors)[index], found(towers, tensors)[index]) < 1e-6
    rows = patches(tiny.pixels(1), towers.pixels.patch)[0] if tower == "image" else tiny.texts(1)[0]
    assert not saves or all(
        len(result) == 1
        for op, _, result in interpreter.steps(narrow, tensors, rows)
        if op.weight.split(".")[-2:][0] in ("q_proj", "out_proj", "fc1", "fc2") and ".layers.1." in op.weight
    )


def test_patches_are_what_a_convolution_reads() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 3, 21, 13)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(7, 3, 4, 4)).astype(np.float32)
    wanted = torch.nn.functional.conv2d(torch.from_numpy(pixels), torch.from_numpy(kernel), stride=4)
    rows = patches(pixels, 4)
    assert rows.shape == (2, 15, 48)
    assert relative(rows @ kernel.reshape(7, -1).T, wanted.flatten(2).transpose(1, 2).numpy()) < 1e-6


Switch = Callable[[Program], Program]


def change(matches: Callable[[Op], bool], **fields: Any) -> Switch:
    def switch(program: Program) -> Program:
        assert any(matches(op) for op in program.ops)
        return replace(program, ops=tuple(replace(op, **fields) if matches(op) else op for op in program.ops))

    return switch


def drop(part: str) -> Switch:
    """Leaves out operations that work in place."""

    def switch(program: Program) -> Program:
        dropped = [op for op in program.ops if part in op.weight]
        assert dropped
        assert all(op.inputs == (op.output,) for op in dropped)
        return replace(program, ops=tuple(op for op in program.ops if op not in dropped))

    return switch


def bias_of(part: str) -> Switch:
    return change(lambda op: op.bias.endswith(f"{part}.bias"), bias="")


def kind(*kinds: str) -> Callable[[Op], bool]:
    return lambda op: op.kind in kinds


def other_probe(program: Program) -> Program:
    """A row of the picture in the probe's place."""
    return change(kind("constant"), kind="pick", row="first")(program)


def one_pooling_head(program: Program) -> Program:
    last = [op for op in program.ops if op.kind == "attention"][-1]
    width = last.heads * last.head_dim
    return change(lambda op: op is last, heads=1, kv_heads=1, head_dim=width)(program)


def without_pooled_mlp(program: Program) -> Program:
    """The sum of the pooled row and its MLP is the row alone."""
    last = program.ops[-1]
    return replace(program, ops=(*program.ops[:-1], replace(last, inputs=(last.inputs[0], last.inputs[0]))))


BOTH = ("image", "text")
POOLED = ("attention.q_proj", "attention.v_proj", "attention.out_proj", "layernorm", "mlp.fc1", "mlp.fc2")
LINEARS = ("q_proj", "v_proj", "out_proj", "fc1", "fc2")  # a bias of keys moves all scores of a query alike
SMALL = {"layer_norm_eps": 1e-5}
FEATURES: dict[str, tuple[str, dict[str, Any], str, Switch]] = {
    **{f"clip-{t}-{part}-bias": ("clip", {}, t, bias_of(part)) for t in BOTH for part in LINEARS},
    **{f"clip-{t}-{n}-bias": ("clip", {}, t, bias_of(n)) for t in BOTH for n in ("norm1", "norm2")},
    **{f"clip-{t}-positions": ("clip", {}, t, drop("position_embedding")) for t in BOTH},
    **{f"clip-{t}-quick-gelu": ("clip", {}, t, change(kind("activation"), function="gelu")) for t in BOTH},
    **{f"clip-{t}-mean": ("clip", {}, t, change(kind("layernorm"), kind="rmsnorm")) for t in BOTH},
    "clip-gelu": ("clip", {"text": GELU}, "text", change(kind("activation"), function="quick_gelu")),
    "clip-text-is-causal": ("clip", {}, "text", change(kind("attention"), causal=False)),
    "clip-image-is-not": ("clip", {}, "image", change(kind("attention"), causal=True)),
    "clip-first-norm": ("clip", {}, "image", drop("pre_layrnorm")),
    "clip-post-norm-bias": ("clip", {}, "image", bias_of("post_layernorm")),
    "clip-final-norm-bias": ("clip", {}, "text", bias_of("final_layer_norm")),
    "clip-class-row-in-front": ("clip", {}, "image", change(kind("pick"), row="last")),
    "clip-end-not-largest": ("clip", {}, "text", change(kind("pick"), token=-1)),
    "clip-end-not-last": ("clip", {}, "text", change(kind("pick"), row="last")),
    "clip-legacy-end": ("clip", {"text": {"eos_token_id": 2}}, "text", change(kind("pick"), token=2)),
    **{f"siglip-{t}-positions": ("siglip", {}, t, drop("position_embedding")) for t in BOTH},
    "siglip-patch-bias": ("siglip", {}, "image", bias_of("patch_embedding")),
    "siglip-text-is-not-causal": ("siglip", {}, "text", change(kind("attention"), causal=True)),
    "siglip-last-token": ("siglip", {}, "text", change(kind("pick"), row="first")),
    "siglip-head-bias": ("siglip", {}, "text", bias_of("text_model.head")),
    "siglip-gelu-tanh": ("siglip", {}, "text", change(kind("activation"), function="quick_gelu")),
    "siglip-probe": ("siglip", {}, "image", other_probe),
    "siglip-pooled-heads": ("siglip", {}, "image", one_pooling_head),
    "siglip-pooled-mlp": ("siglip", {}, "image", without_pooled_mlp),
    "siglip-post-norm": ("siglip", {}, "image", bias_of("post_layernorm")),
    **{f"siglip-pooled-{part}-bias": ("siglip", {}, "image", bias_of(f"head.{part}")) for part in POOLED},
    "clip-eps": ("clip", {"text": {"layer_norm_eps": 0.1}}, "text", change(kind("layernorm"), eps=1e-5)),
}


@pytest.mark.parametrize("case", FEATURES)
def test_switched_off_it_shows(case: str) -> None:
    family, parts, tower, switch = FEATURES[case]
    _, config, tensors = tiny.model(family, **parts)
    towers = families.model(config)
    index = ("image", "text").index(tower)
    before = found(towers, tensors)[index]
    after = found(tiny.with_part(towers, tower, switch(towers.parts[tower])), tensors)[index]
    assert relative(after, before) > 1e-2


def test_the_class_row_has_a_position_of_its_own() -> None:
    _, config, tensors = tiny.model("clip")
    towers = families.model(config)
    name = "vision_model.embeddings.position_embedding.weight"
    rolled = {**tensors, name: np.roll(tensors[name], 1, axis=0)}
    assert relative(found(towers, rolled)[0], found(towers, tensors)[0]) > 1e-2
