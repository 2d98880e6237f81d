"""Published configs of CLIP and SigLIP give exactly the published number of parameters; wrong ones give one clear
error, quickly; and what every reader of a tower relies on holds."""

from __future__ import annotations

import copy
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny_towers as tiny
from tercet import families
from tercet.errors import ModelError
from tercet.program import Model, Program

LARGE = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "clip-vit-base-patch32": (151_277_313, {"model_type": "clip", "architectures": ["CLIPModel"]}),
    "clip-vit-base-patch16": (149_620_737, {"model_type": "clip", "vision_config": {"patch_size": 16}}),
    "clip-vit-large-patch14": (
        427_616_513,
        {
            "model_type": "clip",
            "projection_dim": 768,
            "text_config": {"hidden_size": 512},
            "text_config_dict": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
            "vision_config": {
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "patch_size": 14,
            },
        },
    ),
    "siglip-base-patch16-224": (203_155_970, {"model_type": "siglip", "text_config": None, "vision_config": {}}),
    "siglip2-base-patch16-224": (375_187_970, {"model_type": "siglip", "text_config": {"vocab_size": 256000}}),
    "siglip-so400m-patch14-384": (
        877_960_498,
        {
            "model_type": "siglip",
            "text_config": LARGE,
            "vision_config": {**LARGE, "image_size": 384, "patch_size": 14},
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name: str) -> None:
    count, config = PUBLISHED[name]
    towers = families.model(config)
    assert sum(math.prod(weight.shape) for weight in towers.weights.values()) == count
    check(towers)


def check(towers: Model) -> None:
    """What every reader relies on."""
    for program in (towers.image, towers.text):
        check_program(program)
        check_program(families.narrowed(program))
    assert towers.image.widths["embedding"] == towers.text.widths["embedding"]
    assert not set(towers.image.weights) & set(towers.text.weights)
    assert towers.image.context == (towers.pixels.size // towers.pixels.patch) ** 2
    assert towers.image.vocab_size == 0


def check_program(program: Program) -> None:
    """Widths and rows fit; a length that no width or other length equals stands for the sequence's."""
    rows = {"ids": 7, "patches": 7}
    widths = {"patches": 3 * 8 * 8, **program.widths}
    if not program.vocab_size:
        widths["patches"] = program.weights[program.ops[0].weight].shape[1]
    for op in program.ops:
        assert set(op.inputs) <= set(rows), "read before it is written"
        of_input = rows[op.inputs[0]]
        if op.kind == "add":
            assert {rows[name] for name in op.inputs} == {of_input}
        if op.kind == "attention":
            assert rows[op.inputs[1]] == rows[op.inputs[2]]
            assert of_input == rows[op.inputs[1]] or not op.causal
            assert {widths[name] for name in op.inputs} == {op.heads * op.head_dim}
        if op.kind in ("prepend", "constant"):
            assert program.weights[op.weight].shape == (widths[op.output],)
        if op.kind == "linear":
            assert program.weights[op.weight].shape == (widths[op.output], widths[op.inputs[0]])
            assert op.output not in op.inputs
        elif op.kind not in ("embed", "attention"):
            assert widths[op.inputs[0]] == widths[op.output]
        rows[op.output] = {"prepend": of_input + 1, "constant": 1, "pick": 1}.get(op.kind, of_input)
    assert (program.ops[-1].output, rows["embedding"]) == ("embedding", 1)
    assert sorted(name for block in program.blocks for name in block) == sorted(program.linears)
    assert [op.layer for op in program.ops if op.kind == "attention"] == list(range(len(program.blocks)))


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("siglip", "", {"model_type": "siglip2"}, "NaFlex variant is not supported; take one of a fixed picture size"),
    ("clip", "", {"architectures": ["CLIPTextModelWithProjection"]}, "it must be one that ends with CLIPModel"),
    ("clip", "", {"tercet": {"clip": 1.0}}, "tercet: clip is 1.0; it must be absent: the model has no such part"),
    ("clip", "", {"projection_dim": 0}, "projection_dim is 0"),
    ("clip", "", {"logit_bias": "yes"}, "logit_bias is 'yes'; it must be true or false"),
    ("clip", "", {"text_config": [3]}, "text_config is a list; it must be an object"),
    ("clip", "text_config", {"eos_token_id": 99}, "text_config: eos_token_id is 99; it must be a whole number from 0"),
    ("clip", "text_config", {"eos_token_id": [5]}, "text_config: eos_token_id is a list"),
    ("clip", "text_config", {"pool": "mean"}, "pool is 'mean'; it must be one of end, first, last"),
    ("clip", "text_config", {"hidden_act": "relu"}, "hidden_act is 'relu'; it must be one of silu"),
    ("clip", "text_config", {"quantization_config": {"a": 1}}, "give the original model"),
    (
        "clip",
        "text_config",
        {"hidden_size": 46},
        "hidden_size is 46; it must be an even multiple of num_attention_heads",
    ),
    ("clip", "vision_config", {"num_channels": 4}, "num_channels is 4; it must be a whole number from 3 to 3"),
    ("clip", "vision_config", {"image_size": [28, 28]}, "image_size is a list"),
    ("clip", "vision_config", {"patch_size": 29}, "patch_size is 29; it must be a whole number from 1 to 28"),
    (
        "clip",
        "vision_config",
        {"image_size": 16384, "patch_size": 1},
        "268435456 patches of 1 x 1 pixels; at most 65536",
    ),
    ("clip", "vision_config", {"image_size": 400, "patch_size": 400}, "1 patches of 400 x 400 pixels"),
    ("siglip", "vision_config", {"vision_use_head": False}, "without the pooling head pictures have no embeddings"),
    (
        "siglip",
        "text_config",
        {"projection_size": 63},
        "projection_size is 63; it must be the pictures' hidden_size (64)",
    ),
    ("siglip", "text_config", {"layer_norm_eps": math.nan}, "layer_norm_eps is nan"),
]


@pytest.mark.parametrize(("family", "part", "changes", "message"), REFUSED)
def test_refused_with_one_clear_line(family: str, part: str, changes: dict[str, Any], message: str) -> None:
    config = tiny.config(family)
    (config[part] if part else config).update(changes)
    with pytest.raises(ModelError) as caught:
        families.model(config)
    assert message in str(caught.value)
    assert str(caught.value).startswith("config.json")
    assert "\n" not in str(caught.value)


def test_kinds_are_told_apart() -> None:
    with pytest.raises(ModelError, match="clip is an image-text model, not one of language; tercet embed"):
        families.model(tiny.config("clip")).expect("text")
    pairs = [name for name, family in families.FAMILIES.items() if "vision_config" in family.configs]
    assert pairs == list(tiny.FAMILIES)


HOSTILE = st.one_of(
    st.sampled_from(
        [None, True, False, -1, 0, 1, 2, 3, 1 << 29, 1 << 63, 10**400, "", "clip", "last", [], {}, "x" * 500]
    ),
    st.sampled_from([0.0, 0.5, 1e300, math.nan, math.inf, [[]], {"": None}, [None] * 3]),
    st.integers(),
    st.floats(),
)


def places(node: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for key, value in list(node.items()):
        yield node, key
        if isinstance(value, dict):
            yield from places(value)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(tiny.FAMILIES)), st.data())
def test_mutated_configs_raise_only_model_errors(family: str, data: st.DataObject) -> None:
    config = copy.deepcopy(MADE[family])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(list(places(config))))
        if data.draw(st.booleans()):
            container[key] = copy.deepcopy(data.draw(HOSTILE))
        else:
            del container[key]
    try:
        check(families.model(config))
    except ModelError as error:
        message = str(error)
        if "\n" in message or len(message) > 300:
            pytest.fail(f"not one short line: {message}")


MADE = {family: tiny.config(family) for family in tiny.FAMILIES}


def test_huge_sizes_allocate_little() -> None:
    tracemalloc.start()
    try:
        for made in MADE.values():
            for part in ("text_config", "vision_config"):
                for key in [key for key, value in made[part].items() if type(value) is int]:
                    for value in (1 << 20, 10**400):
                        config = copy.deepcopy(made)
                        config[part][key] = value
                        try:
                            families.model(config)
                        except ModelError:
                            continue
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
