"""Recipes: the files that come with Tercet, rules applied to models, and errors that name their field in one line."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet import families
from tercet.errors import RecipeError
from tercet.program import Model, Op, Program, Weight
from tercet.quantizers import BinaryConfig, KMeansConfig, L2Config, LearnedConfig
from tercet.recipe import Planned, Recipe, names

LINEARS = ("self_attn.q_proj", "mlp.up_proj", "mlp.down_proj")
ANY = {"match": "*", "quantizer": "l2"}


def decoder(hidden: int = 576, inner: int = 1536, *, blocks: int = 2, tied: bool = True) -> Model:
    """A decoder's weights, and of its operations the last, which tells what it is: plans read no more."""
    weights = {"model.embed_tokens.weight": Weight((96, hidden), "embedding")}
    names: list[tuple[str, ...]] = []
    for block in range(blocks):
        block_names = tuple(f"model.layers.{block}.{linear}.weight" for linear in LINEARS)
        weights[f"model.layers.{block}.norm.weight"] = Weight((hidden,), "vector")
        weights |= dict(
            zip(
                block_names,
                (
                    Weight((hidden, hidden), "linear"),
                    Weight((inner, hidden), "linear"),
                    Weight((hidden, inner), "linear"),
                ),
                strict=True,
            )
        )
        names.append(block_names)
    if not tied:
        weights["lm_head.weight"] = Weight((96, hidden), "head")
    program = Program("llama", (Op("linear", ("x",), "logits"),), weights, {}, (), tuple(names), 96, 128)
    return Model("llama", {"text": program})


def recipe(*rules: dict[str, Any], **fields: Any) -> Recipe:
    return Recipe.parse({"rules": list(rules), **fields})


def test_off_is_a_loss_and_not_a_truth_value(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("rules: [{quantizer: dlt}]\ndistil: {off: 0.5}\ntrain: {steps: 1, gradient_checkpointing: off}\n")
    loaded = Recipe.load(file)
    assert loaded.distil is not None
    assert loaded.train is not None
    assert (loaded.distil.off, loaded.train.gradient_checkpointing) == (0.5, False)


WORDS = [name for name in names() if not name.startswith("clip")]  # those are for two towers


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", WORDS)
def test_recipes_that_come_along_plan_a_model(name: str, tied: bool) -> None:
    loaded = Recipe.load(name)
    model = decoder(tied=tied)
    planned = loaded.plan(model)
    assert list(planned) == [each for each, weight in model.weights.items() if weight.role != "vector"]
    assert {planned[each].group_size for each in planned} == {64}
    assert all(planned[each].quantizer for each in model.linears)
    eight = Planned(None, "int8", 64, "q8")
    table = eight if name in ("llama3-8b", "w1.58-rounded") else Planned(None, "int4", 64, "q4")
    assert {planned[each] for each in planned if each.endswith(("embed_tokens.weight", "lm_head.weight"))} == {table}


def test_the_default_recipe() -> None:
    assert {"w1.58", "w1-binary", "quick", "hour", "night"} <= set(names())
    default = Recipe.load("W1.58")
    assert default.name == "W1.58"
    assert default.calibrate is not None
    assert (default.calibrate.tokens, default.calibrate.sweeps, default.calibrate.text) == (40960, 2, "default")
    assert Recipe.load("w1.58-rounded").calibrate is None
    up = "model.layers.0.mlp.up_proj.weight"
    assert default.plan(decoder())[up] == Planned(LearnedConfig(group_size=64), None, 64, "t2")
    assert Recipe.load("w1-binary").plan(decoder())[up] == Planned(BinaryConfig(group_size=64), None, 64, "b1")


@pytest.mark.parametrize("name", names())
def test_what_is_saved_loads_again(name: str, tmp_path: Path) -> None:
    loaded = Recipe.load(name)
    assert Recipe.parse(loaded.model_dump(mode="json")) == loaded
    (tmp_path / "recipe.json").write_text(loaded.model_dump_json(indent=2))
    assert Recipe.load(tmp_path / "recipe.json") == loaded


def test_a_file_without_a_name_is_called_after_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("rules:\n  - quantizer: kmeans\n")
    loaded = Recipe.load(str(tmp_path / "mine.yaml"))
    assert loaded.name == "mine"
    assert loaded.rules[0].quantizer == KMeansConfig()


def test_the_first_rule_that_matches_wins() -> None:
    planned = recipe(
        {"match": "model.layers.1.*", "keep": "float16"},
        {"match": "*down_proj*", "quantizer": {"name": "kmeans", "group_size": 128, "iterations": 3}, "format": "t19"},
        {"match": "*", "quantizer": "twn"},
        {"role": "embedding", "keep": "int4"},
    ).plan(decoder())
    down = planned["model.layers.0.mlp.down_proj.weight"]
    assert down == Planned(KMeansConfig(group_size=128, iterations=3), None, 128, "t19")
    assert planned["model.layers.1.mlp.down_proj.weight"] == Planned(None, "float16", 1536, "f16")
    assert planned["model.layers.0.mlp.up_proj.weight"].format == "t2"
    assert planned["model.embed_tokens.weight"] == Planned(None, "int4", 64, "q4")


def test_a_star_leaves_embeddings_and_heads_alone_unless_told() -> None:
    planned = recipe(ANY).plan(decoder(tied=False))
    assert planned["model.embed_tokens.weight"].keep == planned["lm_head.weight"].keep == "int8"
    planned = recipe(ANY, {"role": ["head", "embedding"], "quantizer": "l2"}).plan(decoder(tied=False))
    assert all(each.quantizer == L2Config(group_size=64) for each in planned.values())
    planned = recipe({"match": "*", "keep": "float32"}).plan(decoder())
    assert {each.format for each in planned.values()} == {"f32"}


VIT_L = {
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
Q_ALL_E = {"role": ["linear", "embedding"], "quantizer": {"name": "l2"}}


def test_rules_reach_into_both_towers() -> None:
    towers = families.model({"model_type": "clip"})
    matrices = {name for name, weight in towers.weights.items() if weight.role != "vector"}

    def ternary(*rules: dict[str, Any]) -> float:
        planned = recipe(*rules, group_size="row").plan(towers)
        assert set(planned) == matrices
        share = [math.prod(towers.weights[name].shape) for name in planned if planned[name].quantizer]
        return sum(share) / sum(math.prod(weight.shape) for weight in towers.weights.values())

    q_ffn = ternary({"match": "*.mlp.*", "quantizer": "l2"}, {"role": "linear", "keep": "int8"})
    assert 0.53 < q_ffn < 0.55
    assert 0.80 < ternary(ANY) < 0.82
    assert ternary(Q_ALL_E) > 0.99
    planned = recipe(ANY).plan(towers)
    assert planned["visual_projection.weight"] == Planned(None, "int8", 128, "q8")
    assert planned["text_model.embeddings.position_embedding.weight"] == Planned(None, "float16", 512, "f16")


def test_a_patch_embedding_that_no_group_divides_does_not_decide_for_all() -> None:
    towers = families.model(VIT_L)
    planned = recipe(ANY).plan(towers)
    assert planned["vision_model.encoder.layers.0.mlp.fc1.weight"].group_size == 128
    assert planned["vision_model.embeddings.patch_embedding.weight"] == Planned(None, "int8", 588, "q8")
    with pytest.raises(RecipeError, match=r"patch_embedding\.weight: width 588 is not a multiple of group_size 128"):
        recipe(Q_ALL_E, group_size=128).plan(towers)
    assert recipe(Q_ALL_E).plan(towers)["vision_model.encoder.layers.0.mlp.fc1.weight"].group_size == 1024


@pytest.mark.parametrize(
    ("hidden", "inner", "group"), [(576, 1536, 64), (256, 640, 128), (96, 256, 32), (100, 256, "row"), (64, 100, "row")]
)
def test_auto_takes_the_largest_group_that_divides_all(hidden: int, inner: int, group: int | str) -> None:
    planned = recipe(ANY).plan(decoder(hidden, inner))
    down = planned["model.layers.0.mlp.down_proj.weight"]
    assert down.quantizer == L2Config(group_size=group)
    assert down.group_size == (inner if group == "row" else group)
    assert planned["model.embed_tokens.weight"].group_size == (hidden if group == "row" else group)


def test_auto_looks_only_at_widths_it_is_for() -> None:
    """Kept floats have no groups, and a quantizer with its own group needs none."""
    rules: tuple[dict[str, Any], ...] = ({"match": "*down_proj*", "keep": "float16"}, ANY)
    assert recipe(*rules).plan(decoder(256, 100))["model.layers.0.mlp.up_proj.weight"].group_size == 128
    rules = ({"match": "*down_proj*", "quantizer": {"name": "l2", "group_size": "row"}}, ANY)
    assert recipe(*rules).plan(decoder(256, 100))["model.layers.0.mlp.up_proj.weight"].group_size == 128
    t19 = recipe(ANY, format="t19").plan(decoder())
    assert {each.group_size for each in t19.values()} == {576, 1536}  # t19 has no groups of 64


@pytest.mark.parametrize("size", ["row", "tensor"])
def test_row_and_tensor_scales_cover_the_width(size: str) -> None:
    planned = recipe({"quantizer": {"name": "l2", "group_size": size}}, group_size="row").plan(decoder())
    assert planned["model.layers.0.mlp.down_proj.weight"] == Planned(L2Config(group_size=size), None, 1536, "t2")


@pytest.mark.parametrize(
    ("rules", "fields", "message"),
    [
        ([ANY], {"group_size": 128}, r"self_attn\.q_proj\.weight: width 576 .* group_size 128; use 64, 32, row"),
        (
            [{"quantizer": {"name": "l2", "group_size": 128}}],
            {},
            r"layers\.0\.self_attn\.q_proj\.weight: width 576 is not a multiple of group_size 128; use 64, 32, row",
        ),
        ([{"match": "*.up_porj.*", "keep": "int8"}, ANY], {}, r"rule 1 \('\*\.up_porj\.\*', .*\) matches no matrix"),
        ([ANY, {"match": "*.1.*", "keep": "float16"}, {"role": "embedding", "keep": "int8"}], {}, None),
        ([ANY, {"match": "*.1.*", "quantizer": "twn"}], {}, r"rule 2 \('\*\.1\.\*', linear\) comes too late"),
        ([ANY, {"role": "head", "keep": "int8"}], {}, r"rule 2 \('\*', head\) matches no matrix"),
        ([ANY, {"match": "model.layers.0.norm.weight", "keep": "float32"}], {}, "rule 2 .* matches no matrix"),
        ([{"match": "*up_proj*", "quantizer": "l2"}], {}, r"no rule matches model\.layers\.0\.self_attn\.q_proj"),
        ([ANY], {"format": "t19", "group_size": 64}, "t19 stores row scales or group_size 128, not 64; use t2"),
        ([{**ANY, "format": "b1"}], {}, "b1 stores binary codes only"),
        ([ANY], {"format": "b1"}, "b1 stores binary codes only"),
        (
            [ANY],
            {"distil": {"off": 1, "blocks": [0, -3]}, "train": {"steps": 1}},
            "blocks: -3 is no block .* 0 to 1",
        ),
        ([ANY], {"distil": {"top_k": 1000}, "train": {"steps": 1}}, "top_k: 1000 is more than the .* logits"),
    ],
)
def test_rules_that_do_not_fit_the_model(rules: list[dict[str, Any]], fields: dict[str, Any], message: str) -> None:
    made = recipe(*rules, **fields)
    with pytest.raises(RecipeError, match=message or "rule 2 .* comes too late"):
        made.plan(decoder())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{quantizer: gptq}]", r"rules\.0\.quantizer: .*'absmean'.*'twn'"),
        (
            "rules: [{quantizer: {name: kmeans, iteratons: 3}}]",
            r"rules\.0\.quantizer\.kmeans\.iteratons: unknown field",
        ),
        ("rules: [{quantizer: {name: l2, group_size: 48}}]", r"rules\.0\.quantizer\.l2\.group_size: "),
        ("rules: [{match: x}]", r"rules\.0: give either `quantizer` or `keep`"),
        ("rules: [{quantizer: l2, keep: int8}]", r"rules\.0: give either"),
        ("rules: [{keep: int8, format: t2}]", r"rules\.0: `format` goes with `quantizer`"),
        ("rules: [{keep: int7}]", r"rules\.0\.keep: "),
        ("rules: [{keep: int8, role: heads}]", r"rules\.0\.role\.0: "),
        ("rules: []", "rules: give at least one rule"),
        ("name: x", "rules: Field required"),
        ("rules: [{quantizer: l2}]\ngroup_size: 100", "group_size: "),
        ("rules: [{quantizer: l2}]\nformat: tq1", "format: "),
        ("rules: [{quantizer: l2}]\ncalibrat: null", "calibrat: unknown field"),
        ("rules: [{quantizer: l2}]\ncalibrate: {tokens: 1}", r"calibrate\.tokens: "),
        ("rules: [{quantizer: l2}]\nevaluate: {tokens: 100}", "evaluate: 100 tokens do not fill"),
        ("rules: [{quantizer: l2}]\ncalibrate: {correction: 1.5}", r"calibrate\.correction: "),
        ("rules: [{quantizer: l2}]\ncalibrate: {damping: .nan}", r"calibrate\.damping: "),
        ("rules: [{quantizer: l2}]\ndistil: {off: 1, blocks: []}\ntrain: {steps: 1}", r"distil\.blocks: "),
        ("rules: [{quantizer: l2}]\ndistil: {}\ntrain: {steps: 1, lr: .inf}", r"train\.lr: "),
        ("rules: [{quantizer: l2}]\nrules: [{quantizer: twn}]", "line 1: 'rules' is given twice"),
        ("a: &a [1]\nrules: *a", r"line 2: aliases \(\*name\) are refused"),
        ("rules: " + "[" * 2000, "nested too deeply"),
        ("rules: !!python/object/apply:os.getcwd []", "line 1: tags .* are refused"),
        ("rules: [", "line 1: "),
        ("x: 2001-99-99", "rules: Field required"),
        ("rules: !!timestamp x", "line 1: tags"),
        ("rules: !!bool maybe", "line 1: tags"),
        ("rules: !!int x", "line 1: tags"),
        ("rules: !!binary '@@'", "line 1: tags"),
        ("x: \x00", "not YAML: "),
        ("- 1", "a recipe is a mapping"),
        ("1: 2", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("# " + "x" * (1 << 18), "larger than 256 KiB"),
    ],
)
def test_bad_files_are_one_line_that_names_the_field(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_no_such_recipe(tmp_path: Path) -> None:
    known = "clip-q-all, clip-q-all-e, clip-q-ffn, hour, llama3-8b, night, quick, w1-binary, w1.58"
    with pytest.raises(RecipeError, match=f"no recipe is called 'w2'; use {known}"):
        Recipe.load("w2")
    for path in (tmp_path / "none.yaml", tmp_path, "../recipes/none.yml", "bad\0.yaml"):
        with pytest.raises(RecipeError):
            Recipe.load(path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.load(tmp_path / "latin.yaml")


KEYS = st.sampled_from(["name", "match", "role", "quantizer", "keep", "tokens", "x"])
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["l2", "*"])
DATA = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*Recipe.model_fields, "x"]), DATA), st.lists(st.dictionaries(KEYS, DATA)))
def test_any_data_is_a_recipe_or_a_recipe_error(fields: dict[str, Any], rules: list[dict[str, Any]]) -> None:
    for data in (fields, {"rules": rules, **fields}):
        with suppress(RecipeError):
            Recipe.parse(data).plan(decoder())


def test_files_that_come_along_are_plain_yaml() -> None:
    folder = Path(__file__).parents[1] / "src/tercet/recipes"
    assert sorted(path.stem for path in folder.iterdir()) == names()
    for path in folder.iterdir():
        assert yaml.safe_load(path.read_text())["description"]
