"""The op list run by torch against transformers' own modules: the same results, and the same gradient of every weight.

In float64, so that rounding hides nothing: what is left is below 1e-8, and a difference of meaning far above it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

import tiny
import tiny_towers
from tercet import families
from tercet.modules.ops import Buffers, run
from tercet.program import Program
from tercet.program.patches import patches
from tercet.sources.views import views

EXACT = 1e-8
NEGLIGIBLE = 1e-6  # of the largest gradient: a bias of keys that are not rotated has none but for rounding


class Wide(TorchFunctionMode):
    """Float64 where norms, softmax and angles ask for float32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        wide = {torch.float32: torch.float64}
        positional = tuple(wide.get(arg, arg) if isinstance(arg, torch.dtype) else arg for arg in args)
        named = {n: wide.get(arg, arg) if isinstance(arg, torch.dtype) else arg for n, arg in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*positional, **named)


def computed(program: Program, rows: NDArray[Any], weights: Mapping[str, Tensor]) -> Tensor:
    """What the last operation gives for `rows`, which the first one reads."""
    buffers: Buffers = {program.ops[0].inputs[0]: torch.from_numpy(rows)}
    for op in program.ops:
        run(program, op, buffers, weights)
    return buffers[program.ops[-1].output]


def leaves(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(tensor).double().requires_grad_() for name, tensor in tensors.items()}


def gradients(of: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.grad.numpy() for name, tensor in of.items() if tensor.grad is not None}


def assert_equal(found: Tensor, wanted: Tensor) -> None:
    assert found.dtype == wanted.dtype == torch.float64
    assert (found - wanted).abs().max() < EXACT * wanted.abs().max()


def assert_same_gradients(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> None:
    floor = NEGLIGIBLE * max(np.abs(gradient).max() for gradient in wanted.values())
    apart = {name: np.abs(found[name] - wanted[name]).max() / max(floor, np.abs(wanted[name]).max()) for name in wanted}
    assert found.keys() == wanted.keys()
    assert {name: error for name, error in apart.items() if not error < EXACT} == {}


def likelihood(logits: Tensor, ids: NDArray[np.int64]) -> Tensor:
    """Mean log-probability of the next tokens."""
    return logits[:, :-1].log_softmax(-1).gather(-1, torch.from_numpy(ids)[:, 1:, None]).mean()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_decoder_has_transformers_logits_and_gradients(family: str) -> None:
    made, config, tensors = tiny.model(family)
    made, ids, weights = made.double(), np.stack([tiny.ids(seed=seed) for seed in (1, 2)]), leaves(tensors)
    with Wide():
        wanted = made(torch.from_numpy(ids), use_cache=False).logits
        found = computed(families.model(config).text, ids, weights)
        assert_equal(found, wanted)
        likelihood(wanted, ids).backward()
        likelihood(found, ids).backward()
    assert gradients(weights).keys() == tensors.keys()
    assert_same_gradients(gradients(weights), gradients(dict(made.named_parameters())))


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_a_tower_has_transformers_embeddings_and_gradients(family: str, tower: str) -> None:
    made, config, tensors = tiny_towers.model(family)
    towers = families.model(config)
    made, weights, program = made.double(), leaves(tensors), getattr(towers, tower)
    with Wide():
        if tower == "image":
            pixels = tiny_towers.pixels()
            rows = patches(pixels, towers.pixels.patch).astype(np.float64)
            wanted = made.get_image_features(torch.from_numpy(pixels).double()).pooler_output
        else:
            rows = tiny_towers.texts()
            wanted = made.get_text_features(torch.from_numpy(rows)).pooler_output
        found = computed(program, rows, weights)[:, 0]
        assert_equal(found, wanted)
        wanted.square().sum().backward()
        found.square().sum().backward()
    whole = {name: (torch.zeros_like(p) if p.grad is None else p.grad).numpy() for name, p in made.named_parameters()}
    theirs = views(towers, whole, {name: tuple(value.shape) for name, value in whole.items()})
    assert gradients(weights).keys() == set(program.weights)
    assert_same_gradients(gradients(weights), {name: theirs[name] for name in program.weights})
