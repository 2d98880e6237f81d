"""Student, teacher and losses together, and activations as the engine quantizes them, on a tiny Llama."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

import tiny
import training
from tercet import families
from tercet.modules import activations
from tercet.modules.activations import quantized
from tercet.modules.module import ProgramModule
from tercet.packing.reference import quantize_activations as engine_activations
from tercet.quantizers import LearnedConfig, freeze, quantize_
from tercet.recipe import Distil
from tercet.train import features
from tercet.train.tasks.text import TextTask
from tercet.train.teacher import HeadOnly, stored_hidden

GROUP = 32


def pair(settings: Distil, *, start: bool = True, family: str = "llama") -> TextTask:
    teacher = training.module(family)
    student = copy.deepcopy(teacher)
    student.get_parameter("model.embed_tokens.weight").requires_grad_(False)
    names = student.description.linears
    if start:
        quantize_(student, {name: LearnedConfig(group_size=GROUP) for name in names})
        student.round_activations(dict.fromkeys(names, GROUP), settings.activations)
    return TextTask(student, teacher, settings)


def logits(model: ProgramModule) -> Tensor:
    return F.linear(model("text", IDS).result, *model.head())


def original(family: str = "llama") -> Tensor:
    """The logits of transformers' own model: what a live teacher says."""
    made, _, _ = tiny.model(family)
    return torch.from_numpy(np.stack([tiny.reference(made, ids) for ids in IDS.numpy()]))


IDS = torch.randint(300, (2, 12), generator=torch.Generator().manual_seed(5))
ALL = Distil(kl=1, ce=0.5, off=0.3, hidden=0.2, relations=0.1)


def test_the_loss_is_the_sum_of_its_parts() -> None:
    out = pair(ALL)({"ids": IDS})
    assert set(out) == {"loss", "kl", "ce", "off", "hidden", "relations"}
    total = sum(getattr(ALL, name) * value for name, value in out.items() if name != "loss")
    torch.testing.assert_close(out["loss"].detach(), total)


@pytest.mark.parametrize("family", ["llama", "phi"])  # whose head has a bias
def test_each_part_is_what_the_whole_models_say(family: str) -> None:
    task = pair(ALL, family=family)
    out = task({"ids": IDS})
    s, t = logits(task.student), original(family)
    kl = (t.softmax(-1) * (t.log_softmax(-1) - s.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(out["kl"], kl.detach(), rtol=1e-4, atol=1e-5)
    ce = torch.nn.functional.cross_entropy(s[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()) * 11 / 12
    torch.testing.assert_close(out["ce"], ce.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [None, (0,), (-1,)])
def test_features_are_those_of_transformers_hidden_states(blocks: tuple[int, ...] | None) -> None:
    """The last of which is behind the final norm."""
    made = [tiny.model("llama", seed=seed) for seed in (1, 0)]
    student, teacher = (ProgramModule(families.model(config), tensors) for _, config, tensors in made)
    found = TextTask(student, teacher, Distil(kl=0, off=1, hidden=1, blocks=blocks))({"ids": IDS})
    with torch.no_grad():
        both = [model(input_ids=IDS, output_hidden_states=True).hidden_states[1:] for model, _, _ in made]
    one, two = ([hidden[index] for index in blocks or range(len(hidden))] for hidden in both)
    torch.testing.assert_close(found["off"], features.cosine(one, two), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found["hidden"], features.relative(one, two), rtol=1e-4, atol=1e-6)


def test_a_student_that_is_the_teacher_has_nothing_to_learn() -> None:
    out = pair(Distil(kl=1, off=1, hidden=1, relations=1, activations="a16"), start=False)({"ids": IDS})
    assert out["loss"].abs() < 1e-5


def test_gradients_reach_latents_scales_and_norms_and_nothing_else() -> None:
    task = pair(ALL)
    task({"ids": IDS})["loss"].backward()
    for name, parameter in task.named_parameters():
        trained = name.startswith("student.") and "embed_tokens" not in name and "lm_head" not in name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == trained, name


def test_features_alone_are_learnt_without_a_head() -> None:
    task = pair(Distil(kl=0, hidden=1))
    out = task({"ids": IDS})
    assert set(out) == {"loss", "hidden"}
    out["loss"].backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in task.student.parameters())


def test_stored_logits_give_the_loss_of_live_ones() -> None:
    """With k = all but one token the bucket holds one token too: the same KL."""
    live = pair(Distil())({"ids": IDS})
    task = pair(Distil(top_k=299))
    values, index = original().log_softmax(-1).topk(299)
    task.teacher = None
    stored = task({"ids": IDS, "values": values, "index": index})
    torch.testing.assert_close(stored["loss"], live["loss"], rtol=1e-3, atol=1e-4)


def test_stored_hidden_states_give_the_loss_of_a_live_teacher(tmp_path: Path) -> None:
    task = pair(Distil(ce=0.5))
    live = task({"ids": IDS})
    assert isinstance(task.teacher, ProgramModule)
    kept = stored_hidden(task.teacher, IDS.numpy(), tmp_path, {}, lambda *_: None)["teacher"]
    task = pair(Distil(ce=0.5, teacher="stored"))
    task.teacher = HeadOnly(task.teacher)
    stored = task({"ids": IDS, "teacher": torch.from_numpy(np.array(kept))})
    torch.testing.assert_close(stored["loss"], live["loss"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("group", [32, 64])
def test_a8_is_the_engines_own_arithmetic(group: int) -> None:
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(2))
    x[3], x[4, :32], x[5, 7] = 0, 0, 1000
    x[6] = 1e-38 * x[6].sign()
    codes, scale, _ = engine_activations(x.numpy(), group)
    expected = (codes.astype(np.float32).reshape(9, -1, group) * scale[..., None]).reshape(9, 64)
    assert np.array_equal(quantized(x, "a8", group).numpy(), expected)


def test_a8_keeps_float64_models_in_float64() -> None:
    x = torch.randn(3, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = quantized(x, "a8", 32)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, quantized(x.float(), "a8", 32).double(), rtol=1e-6, atol=1e-6)


def test_a4_and_ternary_have_few_values() -> None:
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(2))
    assert max(len(row.unique()) for row in quantized(x, "a4", 64)) <= 15
    assert max(len(row.unique()) for row in quantized(x, "ternary", 64)) == 3
    assert quantized(x, "a16", 64) is x


def test_an_input_that_is_shared_is_quantized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = activations.quantized
    monkeypatch.setattr(activations, "quantized", lambda *a: calls.append(1) or plain(*a))
    task = pair(Distil())
    task.student("text", IDS)
    blocks = len(task.student.description.text.blocks)
    assert len(calls) == 4 * blocks  # q k v together, o, gate and up together, down
    task.student("text", IDS)
    assert len(calls) == 8 * blocks


def test_bfloat16_is_near_float32() -> None:
    task = pair(Distil())
    exact = task({"ids": IDS})["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        rough = task({"ids": IDS})["loss"]
    assert rough.item() == pytest.approx(exact.item(), rel=0.1)
    assert rough != exact


def test_another_head_is_cast_anew() -> None:
    """Also where it lies at the place of one that is gone."""
    task = pair(Distil())
    with torch.autocast("cpu", torch.bfloat16):
        for value in range(5):
            task.teacher = HeadOnly(task.student)
            task.teacher.weight = torch.nn.Parameter(torch.full((300, 64), float(value)), requires_grad=False)
            for _ in range(2):
                assert (task.head(task.teacher).weight == value).all()
        task.teacher.weight.add_(1)
        assert (task.head(task.teacher).weight == 5).all()


def test_freezing_gives_what_the_losses_saw() -> None:
    task = pair(Distil(activations="a16"))
    frozen = freeze(task.student)
    plain = training.module()
    for name, tensor in frozen.items():
        plain.get_parameter(name).data = torch.from_numpy(tensor.dequantize())
    assert torch.equal(logits(plain), logits(task.student))


def test_settings_that_would_learn_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing would be learnt"):
        Distil(kl=0)
    with pytest.raises(ValidationError, match="top_k"):
        Distil(top_k=64, off=1)
    with pytest.raises(ValidationError, match="live"):
        Distil(teacher="stored", off=1)
