"""Adapters inside the quantizers: they learn, merging changes no bit, and the model is ternary before and after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import tiny
import training
from tercet.errors import TrainError
from tercet.modules.module import ProgramModule
from tercet.quantizers import AbsMeanConfig, LearnedConfig, LrQatConfig, QuantizerConfig, freeze, quantize_
from tercet.train import add_lora, fine_tune, load_weights, merge_lora
from tercet.train.parameters import trained

LEARNED = LearnedConfig(group_size=32, shift=True)
IDS = torch.from_numpy(tiny.ids(24))[None]


def model(config: QuantizerConfig = LEARNED, tied: bool = False) -> ProgramModule:
    """`tied`: embedding and head, which are one tensor, are quantized too."""
    made = training.module(tie_word_embeddings=not tied)
    names = made.description.linears
    if tied:  # under two names
        made.lm_head.weight = made.model.embed_tokens.weight
        names += ["model.embed_tokens.weight", "lm_head.weight"]
    quantize_(made, dict.fromkeys(names, config))
    return made


@torch.no_grad()
def logits(made: ProgramModule, ids: torch.Tensor = IDS) -> torch.Tensor:
    return F.linear(made("text", ids).result, *made.head())


def frozen(made: nn.Module) -> list[bytes]:
    return [tensor.codes.tobytes() + tensor.scale.tobytes() for tensor in freeze(made).values()]


@pytest.mark.parametrize("config", [LEARNED, AbsMeanConfig(), AbsMeanConfig(group_size="tensor")])
@pytest.mark.parametrize("tied", [False, True])
def test_merging_changes_no_bit(config: QuantizerConfig, tied: bool) -> None:
    made = model(config, tied)
    before, codes = logits(made), frozen(made)
    add_lora(made, rank=4)
    assert torch.equal(logits(made), before)  # B is 0
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith(".b"):
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    changed, changed_codes = logits(made), frozen(made)
    assert not torch.equal(changed, before)
    assert len(changed_codes) == len(codes)
    assert all(one != other for one, other in zip(codes, changed_codes, strict=True))
    merge_lora(made)
    assert torch.equal(logits(made), changed)
    assert frozen(made) == changed_codes
    assert not [name for name, _ in made.named_parameters() if name.endswith((".a", ".b"))]
    if tied:
        head, embedding = made.lm_head.parametrizations.weight, made.model.embed_tokens.parametrizations.weight
        assert head.original is embedding.original


def test_only_adapters_and_scales_are_trained() -> None:
    made = model()
    whole = sum(parameter.numel() for parameter in trained(made).values())
    add_lora(made, rank=2)
    assert {name.rpartition(".")[2] for name in trained(made)} == {"a", "b", "scale", "shift"}
    adapters = sum(p.numel() for name, p in trained(made).items() if name.endswith((".a", ".b")))
    assert adapters == sum(2 * sum(tensor.codes.shape) for tensor in freeze(made).values())
    assert adapters < whole / 10


def test_it_learns_a_text_and_stays_ternary(tmp_path: Path) -> None:
    made = model()
    windows = np.tile(training.windows(2), (4, 1))
    settings = training.settings(steps=40, lr=1e-2, scale_lr=1e-3, checkpoint_every=40)
    losses: list[float] = []

    ids = torch.from_numpy(windows[:2])

    def loss(of: ProgramModule) -> float:
        return float(F.cross_entropy(logits(of, ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))

    start = loss(made)
    result = fine_tune(made, windows, settings, tmp_path, rank=8, progress=lambda r: losses.append(r["loss"]))
    end = loss(made)
    assert end < start / 4
    assert losses[-1] < losses[0] / 4
    plain, _, _ = tiny.model("llama")
    tensors = freeze(made)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name in tensors:
                parameter.copy_(torch.from_numpy(tensors[name].dequantize()))
    with torch.no_grad():
        ships = float(plain(input_ids=ids, labels=ids).loss)
    assert ships == pytest.approx(end, abs=1e-5)  # what ships has all that was gained
    assert result.step == 40

    again = model()
    add_lora(again, rank=8)
    task = nn.Module()
    task.student = again
    load_weights(task, tmp_path)
    merge_lora(again)
    assert frozen(again) == frozen(made)


def test_what_cannot_be_is_refused() -> None:
    plain = training.module()
    with pytest.raises(TrainError, match="no quantized weight"):
        add_lora(plain)
    made = model()
    with pytest.raises(TrainError, match="no adapter to merge"):
        merge_lora(made)
    add_lora(made)
    with pytest.raises(TrainError, match="has an adapter already"):
        add_lora(made)
    with pytest.raises(TrainError, match="low-rank change of its own"):
        add_lora(model(LrQatConfig()))
