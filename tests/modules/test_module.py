"""A language model's program as a module: transformers' numbers, inside and out, and blocks that are called."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

import tiny
import tiny_towers
import training
from tercet import families
from tercet.modules.module import Block, ProgramModule
from tercet.modules.ops import Buffers, _angles, run
from tercet.program import Op
from tercet.program.hadamard import rotated
from tercet.program.patches import patches
from tercet.quantizers import LearnedConfig, quantize_

IDS = torch.from_numpy(np.stack([tiny.ids(24, seed=seed) for seed in range(3)]))
BLOCKS = ("model.layers.0", "model.layers.1")


def logits(module: ProgramModule, ids: Tensor = IDS) -> Tensor:
    return F.linear(module("text", ids).result, *module.head())


def close(found: Tensor, expected: Tensor, part: float = 1e-5) -> None:
    """Within a part of the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < part * expected.abs().max()


@contextmanager
def hooked(model: nn.Module, names: Any, hook: Callable[..., Any]) -> Iterator[None]:
    """Forward hooks on submodules; `hook` gets the name and what torch gives."""
    handles = [
        model.get_submodule(name).register_forward_hook(lambda *given, name=name: hook(name, *given)) for name in names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gradients(module: ProgramModule) -> dict[str, Tensor]:
    """Of a loss that every parameter moves."""
    F.cross_entropy(logits(module)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()).backward()
    found = {}
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        found[name], parameter.grad = parameter.grad, None
    return found


def original_gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """The same of transformers' model; a tied head is its embedding."""
    given = model(input_ids=IDS, use_cache=False).logits[:, :-1]
    F.cross_entropy(given.flatten(0, 1), IDS[:, 1:].flatten()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_and_gradients_are_those_of_transformers(family: str) -> None:
    original, _, _ = tiny.model(family)
    module = training.module(family)
    close(logits(module)[1], torch.from_numpy(tiny.reference(original, IDS[1].numpy())))
    found, expected = gradients(module), original_gradients(original)
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in found.items():  # those of keys' biases are zero but for rounding
        assert (gradient - expected[name]).abs().max() < 1e-4 * expected[name].abs().max() + 1e-6 * largest, name


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_blocks_and_taps_are_those_of_transformers(family: str) -> None:
    original, _, _ = tiny.model(family)
    module = training.module(family)
    taps = [name for name in module.description.linears if name.split(".")[-2] in ("q_proj", "k_proj", "v_proj")]
    seen: dict[str, Tensor] = {}
    projections = [name.removesuffix(".weight") for name in taps]
    layers = [f"model.layers.{index}" for index in range(len(module.description.text.blocks))]

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        seen[name] = output[0] if isinstance(output, tuple) else output

    with torch.no_grad(), hooked(original, [*projections, *layers], keep):
        hidden = original(input_ids=IDS, use_cache=False, output_hidden_states=True).hidden_states
        made = module("text", IDS, blocks=True, taps=taps)
    assert len(made.blocks) == len(layers)
    for name, found in zip(layers, made.blocks, strict=True):
        close(found, seen[name].flatten(0, 1))
    for found, state in zip(made.blocks[:-1], hidden[1:-1], strict=True):  # the last of which is normed
        close(found, state.flatten(0, 1))
    close(made.result, hidden[-1])
    assert made.taps.keys() == set(taps)
    for name, found in made.taps.items():
        close(found, seen[name.removesuffix(".weight")])
    plain = module("text", IDS)
    assert (plain.blocks, plain.taps) == ([], {})
    assert torch.equal(plain.result, made.result)


def test_blocks_are_called_and_with_checkpointing_called_again() -> None:
    module = training.module()
    quantize_(module, dict.fromkeys(module.description.linears, LearnedConfig(group_size=32)))
    assert [name for name, part in module.named_modules() if isinstance(part, Block)] == list(BLOCKS)
    calls: list[str] = []
    for name in BLOCKS:  # before it runs: what runs again stops where nothing more is needed
        module.get_submodule(name).register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    after: list[str] = []
    with hooked(module, BLOCKS, lambda name, *_: after.append(name)):
        plain = gradients(module)
    assert calls == after == [*BLOCKS]
    module.recomputes = True
    again = gradients(module)
    assert calls == [*BLOCKS, *BLOCKS, *reversed(BLOCKS)]
    with torch.no_grad():
        logits(module)
    assert len(calls) == 8
    assert all(torch.equal(plain[name], gradient) for name, gradient in again.items())


def test_taps_and_blocks_have_gradients_with_checkpointing() -> None:
    module, name = training.module(), "model.layers.1.self_attn.q_proj.weight"
    found = []
    for module.recomputes in (False, True):
        made = module("text", IDS, blocks=True, taps=[name])
        (made.taps[name].square().sum() + made.blocks[0].sum()).backward()
        found.append(module.get_parameter("model.layers.0.mlp.up_proj.weight").grad)
        module.zero_grad()
    assert found[0].abs().sum() > 0
    assert torch.equal(*found)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_a_rotated_model_is_the_plain_one_of_other_weights(family: str) -> None:
    plain, (_, config, tensors) = training.module(family), tiny.model(family, tercet={"rotate": True})
    model = families.model(config)
    blocks = model.rotations
    assert set(blocks) == set(model.linears)
    turned = ProgramModule(model, {n: rotated(t, blocks[n]) if n in blocks else t for n, t in tensors.items()})
    close(logits(turned), logits(plain))
    expected = gradients(plain)
    for name, gradient in gradients(turned).items():
        wanted = rotated(expected[name], blocks[name]) if name in blocks else expected[name]
        close(gradient, wanted, 1e-4)


def test_clips_are_clamps_of_the_linears_results() -> None:
    limit = 0.5
    original, config, tensors = tiny.model("llama", tercet={"clip": limit}, attention_bias=True)
    module = ProgramModule(families.model(config), tensors)
    linears = [name.removesuffix(".weight") for name in module.description.linears]
    clamped: list[bool] = []

    def clamp(_name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        clamped.append(bool((output.abs() > limit).any()))
        return output.clamp(-limit, limit)

    with hooked(original, linears, clamp):
        close(logits(module)[1].detach(), torch.from_numpy(tiny.reference(original, IDS[1].numpy())))
        expected = original_gradients(original)
    assert sum(clamped) > len(clamped) / 2
    largest = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in gradients(module).items():
        assert (gradient - expected[name]).abs().max() < 1e-4 * expected[name].abs().max() + 1e-6 * largest, name


@pytest.mark.parametrize("transforms", [{}, {"rotate": True}])
def test_float64_is_float64_throughout(transforms: dict[str, Any]) -> None:
    """A difference quotient of the loss is its gradient: float32 anywhere on the way would leave nothing of it."""
    module = training.module(tercet=transforms)
    single = logits(module).detach()
    module = module.double()
    assert logits(module).dtype == torch.float64
    close(logits(module).detach(), single.double())
    generator = torch.Generator().manual_seed(0)
    direction = {n: torch.randn(p.shape, generator=generator).double() for n, p in module.named_parameters()}
    slope = sum(float((gradient * direction[name]).sum()) for name, gradient in gradients(module).items())
    losses, step = [], 1e-7
    with torch.no_grad():
        for sign in (1, -2):
            for name, parameter in module.named_parameters():
                parameter += sign * step * direction[name]
            losses.append(float(F.cross_entropy(logits(module)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(slope, rel=1e-7)


def test_a_copy_is_the_same_model_with_weights_of_its_own() -> None:
    module = training.module()
    quantize_(module, dict.fromkeys(module.description.linears, LearnedConfig(group_size=32)))
    module.round_activations(dict.fromkeys(module.description.linears, 32), "a8")
    expected = logits(module).detach()
    other = copy.deepcopy(module)
    assert torch.equal(logits(other), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert not logits(other).any()
    assert torch.equal(logits(module), expected)


def test_angles_of_any_length_are_right_and_few_are_kept() -> None:
    """What comes later changes nothing; tables of the least recent lengths are forgotten."""
    module, ids = training.module("gemma3_text"), torch.from_numpy(tiny.ids(40))[None]
    with torch.no_grad():
        whole = logits(module, ids)
        for length in range(1, 41):
            close(logits(module, ids[:, :length]), whole[:, :length])
    kept = _angles.cache_info()
    assert kept.maxsize is not None
    assert kept.currsize <= kept.maxsize <= 16


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_bfloat16_products_are_near(family: str) -> None:
    module = training.module(family)
    exact = gradients(module)
    torch.set_warn_always(True)
    try:
        with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
            warnings.simplefilter("error")  # as of norms that torch computes slowly
            rough = gradients(module)
    finally:
        torch.set_warn_always(False)
    for name, gradient in exact.items():
        if not name.endswith("k_proj.bias"):
            assert F.cosine_similarity(gradient.flatten(), rough[name].flatten(), dim=0) > 0.9, name


def test_a_part_that_ends_in_rows_gives_them() -> None:
    _, config, tensors = tiny_towers.model("clip")
    model = families.model(config)
    part = model.image
    at = next(index for index, op in enumerate(part.ops) if op.kind == "pick")
    ops = [*part.ops[:at], Op("drop", ("x",), "y"), *part.ops[at + 1 : -1], replace(part.ops[-1], output="rows")]
    rows = replace(part, ops=tuple(ops), widths={**part.widths, "rows": part.widths["embedding"]})
    made = ProgramModule(replace(model, parts={"image": rows, "text": model.text}), tensors)
    cut = patches(tiny_towers.pixels(), model.pixels.patch)
    buffers: Buffers = {"patches": torch.from_numpy(cut)}
    with torch.no_grad():
        found = made("image", torch.from_numpy(cut)).result
        for op in rows.ops:
            run(rows, op, buffers, {name: torch.from_numpy(tensor) for name, tensor in tensors.items()})
    assert found.shape == (len(cut), cut.shape[1], part.widths["embedding"])
    torch.testing.assert_close(found, buffers["rows"])
