"""`quantize_` and `freeze` on models: names, tied weights, and nothing changed where something is refused."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn
from torch.nn.utils import parametrize

from tercet.errors import QuantizeError
from tercet.quantizers import L2, AbsMean, AnyQuantizer, KMeans, KMeansConfig, L2Config, TwnConfig, freeze, quantize_

REGISTRY: TypeAdapter[AnyQuantizer] = TypeAdapter(AnyQuantizer)
NAMES = (
    "absmean",
    "absmean2",
    "binary",
    "catq",
    "crulis",
    "dlt",
    "itf",
    "kmeans",
    "l2",
    "learned",
    "lrqat",
    "seq",
    "twn",
)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 64)
        self.up = nn.Linear(64, 96, bias=False)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("group", [32, "row", "tensor", None])
def test_the_union_is_the_registry(name: str, group: int | str | None) -> None:
    config = REGISTRY.validate_python({"name": name, "group_size": group})
    assert type(config).__name__.lower() == f"{name}config"
    quantizer = config.build()
    assert quantizer.group_size == (group or "row")
    assert quantizer.freeze(quantizer.start(torch.randn(3, 64))).shape == (3, 64)
    assert REGISTRY.validate_python(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    "fields", [{"name": "gptq"}, {"name": "l2", "group_size": 48}, {"name": "l2", "iterations": 3}, {}]
)
def test_other_settings_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        REGISTRY.validate_python(fields)


def test_settings_reach_the_quantizer() -> None:
    w = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    assert KMeansConfig(iterations=0).build().freeze(w).equals(AbsMean("row").freeze(w))
    assert TwnConfig(threshold=1.5).build().threshold == 1.5


def test_any_named_tensor_of_any_module() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(64, 2)})
    before = model["attention"].in_proj_weight.detach().clone()
    quantize_(model, {"attention.in_proj_weight": L2Config(group_size=64)})
    assert freeze(model)["attention.in_proj_weight"].equals(L2(64).freeze(before))
    assert model["attention"].in_proj_weight.unique().numel() <= 2 * 192 + 1
    plain = nn.Linear(32, 4)
    quantize_(plain, {"weight": L2Config()})
    assert list(freeze(plain)) == ["weight"]


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_tied_weights_stay_tied_and_are_frozen_once(name: str) -> None:
    model = Tied()
    quantize_(model, {name: L2Config(group_size=32)})
    assert torch.equal(model.embed.weight, model.head.weight)
    assert model.embed.parametrizations.weight.original is model.head.parametrizations.weight.original
    assert list(freeze(model)) == ["embed.weight"]
    model.head(model.embed(torch.tensor([1]))).sum().backward()
    assert sum(p.numel() for p in model.parameters()) == 40 * 64 + 64 * 96


def test_tied_weights_take_one_config() -> None:
    model = Tied()
    same = {"embed.weight": L2Config(), "head.weight": L2Config()}
    with pytest.raises(QuantizeError, match="tied"):
        quantize_(model, {**same, "head.weight": KMeansConfig()})
    quantize_(model, same)
    assert list(freeze(model)) == ["embed.weight"]


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("up.wieght", L2Config(), "no such tensor"),
        ("down.weight", L2Config(), "no such tensor"),
        ("up.weight", L2Config(group_size=128), "width 64 is not a multiple of the group size 128; use 64, 32 or row"),
        ("norm.weight", L2Config(), "only float matrices"),
        ("bad.weight", L2Config(), "not finite"),
    ],
)
def test_what_is_refused_changes_nothing(name: str, config: L2Config, message: str) -> None:
    model = Tied()
    model.norm = nn.LayerNorm(64)
    model.bad = nn.Linear(32, 32)
    model.bad.weight.data[3, 3] = torch.nan
    with pytest.raises(QuantizeError, match=f"^{name}: .*{message}"):
        quantize_(model, {"embed.weight": L2Config(), name: config})
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    assert freeze(model) == {}


def test_a_model_is_quantized_once() -> None:
    model = Tied()
    quantize_(model, {"up.weight": L2Config()})
    with pytest.raises(QuantizeError, match=r"up\.weight: already"):
        quantize_(model, {"up.weight": L2Config()})


def test_other_parametrizations_are_left_alone() -> None:
    model = nn.utils.parametrizations.weight_norm(nn.Linear(32, 4))
    assert freeze(model) == {}


def test_quantizers_describe_themselves() -> None:
    assert repr(KMeans(64)) == "KMeans(group_size=64)"
