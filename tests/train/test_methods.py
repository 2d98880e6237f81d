"""Every quantizer that is trained: from calibrated levels it lowers the loss of distillation, and ships what it is."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import tiny
import training
from tercet import fsio
from tercet.modules.module import ProgramModule
from tercet.packing import pack, unpack
from tercet.quantizers import (
    AbsMean2Config,
    BinaryConfig,
    CatQConfig,
    CrulisConfig,
    DltConfig,
    L2Config,
    LearnedConfig,
    LrQatConfig,
    QuantizerConfig,
    SeqConfig,
    freeze,
    quantize_,
)
from tercet.recipe import Distil, Train
from tercet.train import TextTask, train
from tercet.train.journal import read_journal

METHODS: dict[str, QuantizerConfig] = {
    "l2": L2Config(group_size=32),
    "absmean2": AbsMean2Config(group_size=32),
    "binary": BinaryConfig(group_size=32),
    "learned": LearnedConfig(group_size=32),
    "learned_shift": LearnedConfig(group_size=32, shift=True),
    "learned_binary": LearnedConfig(group_size=32, binary=True),
    "dlt": DltConfig(group_size=32),
    "dlt_masked": DltConfig(group_size=32, gradient="masked"),
    "dlt_scaled": DltConfig(group_size=32, gradient="scaled"),
    "seq": SeqConfig(group_size=32),
    "seq_binary": SeqConfig(group_size=32, binary=True),
    "catq": CatQConfig(group_size=32),
    "crulis": CrulisConfig(group_size=32),
    "lrqat": LrQatConfig(group_size=32, rank=8, alpha=32),
    "lrqat_int8": LrQatConfig(group_size=32, rank=8, alpha=32, base="int8"),
}


@pytest.fixture(autouse=True)
def _no_plug_is_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "_sync", lambda _: None)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_from_calibrated_levels_and_ships_what_it_is(method: str, tmp_path: Path) -> None:
    config = METHODS[method]
    plain, _, tensors = tiny.model("llama")  # transformers' own, which is to run what ships
    teacher = training.module()
    names = teacher.description.linears
    start = (BinaryConfig if config.two_levels else L2Config)(group_size=32).build()
    levels = {name: start.freeze(torch.from_numpy(tensors[name])) for name in names}
    student = copy.deepcopy(teacher)
    student.get_parameter("model.embed_tokens.weight").requires_grad_(False)
    quantize_(student, dict.fromkeys(names, config), levels)
    ids = torch.from_numpy(np.stack([tiny.ids(16, seed=seed) for seed in range(8)]))
    for name, tensor in freeze(student).items():
        assert np.array_equal(tensor.codes, levels[name].codes)
    settings = Train(
        steps=20, batch=8, context=16, lr=5e-3, scale_lr=1e-3, norm_lr=1e-3, checkpoint_every=20, precision="float32"
    )
    task = TextTask(student, teacher, Distil(activations="a16"))
    with torch.no_grad():  # not the journal's first loss: catq is soft at the first step
        before = float(task({"ids": ids})["loss"])
    train(task, ids.numpy(), settings, tmp_path)
    assert read_journal(tmp_path / "journal.jsonl")[-1]["loss"] < 0.85 * before
    frozen = freeze(student)
    assert set(frozen) == set(names)
    for name, tensor in frozen.items():
        shipped = unpack(pack(tensor, "b1" if config.two_levels else "t2"))
        assert np.array_equal(shipped.dequantize(), tensor.dequantize())
        plain.get_parameter(name).data = torch.from_numpy(tensor.dequantize())
    vectors = {name: value for name, value in student.named_parameters() if "norm" in name}
    assert not plain.load_state_dict(vectors, strict=False).unexpected_keys
    shipped = ProgramModule(student.description, {name: value.numpy() for name, value in plain.state_dict().items()})
    with torch.no_grad():
        sees, ships = (F.linear(made("text", ids).result, *made.head()) for made in (student, shipped))
        torch.testing.assert_close(ships, plain(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(sees, ships)
