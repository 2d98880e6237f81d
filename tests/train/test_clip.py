"""Both towers as a student: losses against brute force, law 1, the engine's activations, a short training."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny_towers
from tercet import families
from tercet.calibrate import rounded
from tercet.modules.module import ProgramModule
from tercet.packing.reference import quantize_activations as engine_activations
from tercet.program import Model, interpreter
from tercet.program.patches import patches
from tercet.quantizers import AbsMean2Config, LearnedConfig, freeze, quantize_
from tercet.recipe import ClipDistil, Recipe, Train
from tercet.train import PairTask, clip_losses, read_journal, train

ALL = ClipDistil(kind="clip", task=1, fd=4, icl=0.5, ckd=0.7, off=0.3)
STORED = ClipDistil(kind="clip", task=1, fd=4)
PAIRS, MORE = 7, 3


def module(family: str = "clip") -> ProgramModule:
    _, config, tensors = tiny_towers.model(family)
    return ProgramModule(families.model(config), tensors)


ROWS = LearnedConfig(group_size="row")


def student(family: str = "clip", config: Any = ROWS, activations: Any = "a8") -> Any:
    made = module(family)
    names = [n for n, weight in made.description.weights.items() if weight.role in ("linear", "embedding")]
    quantize_(made, dict.fromkeys(names, config))
    made.round_activations({name: made.description.weights[name].shape[1] for name in names}, activations)
    return made


def rows(towers: Model, count: int, seed: int) -> dict[str, Tensor]:
    made = {"patches": patches(tiny_towers.pixels(count, seed=seed), towers.pixels.patch)}
    return {k: torch.from_numpy(v) for k, v in {**made, "ids": tiny_towers.texts(count, seed=seed)}.items()}


def batch(towers: Model, *, more: bool = False) -> dict[str, Tensor]:
    found = {**rows(towers, PAIRS, 3), "groups": torch.tensor([0, 1, 2, 1, 3, 4, 0])}
    if more:
        found |= {f"more_{name}": value for name, value in rows(towers, MORE, 4).items()}
    return found


@torch.no_grad()
def answers(teacher: ProgramModule, given: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for prefix in [p for p in ("", "more_") if f"{p}ids" in given]:
        found[f"{prefix}image_teacher"] = teacher("image", given[f"{prefix}patches"]).result
        found[f"{prefix}text_teacher"] = teacher("text", given[f"{prefix}ids"]).result
    return found


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_the_module_is_the_model(family: str) -> None:
    original, _, _ = tiny_towers.model(family)
    made, pixels, ids = module(family), tiny_towers.pixels(), tiny_towers.texts()
    image, text, logits = tiny_towers.reference(original, pixels, ids)
    with torch.no_grad():
        one = made("image", torch.from_numpy(patches(pixels, made.description.pixels.patch))).result
        two = made("text", torch.from_numpy(ids)).result
        own = made.scale * clip_losses.normalised(one) @ clip_losses.normalised(two).T
        own = own if made.bias is None else own + made.bias
    for found, expected in ((one, image), (two, text), (own, logits)):
        assert np.abs(found.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("config", [LearnedConfig(group_size="row"), AbsMean2Config(group_size="tensor")])
@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_law_1_in_both_towers(family: str, config: Any) -> None:
    """What the module computes with is what `freeze` gives, and embeddings of both are the same."""
    made = student(family, config, "a16")
    frozen = freeze(made)
    tensors = {name: made.weight(name).detach().numpy().copy() for name in made.description.weights}
    assert set(frozen) == {
        n for n, weight in made.description.weights.items() if weight.role in ("linear", "embedding")
    }
    for name, tensor in frozen.items():
        assert np.array_equal(tensor.dequantize(), tensors[name]), name
    given = rows(made.description, 3, 5)
    for part, program in made.description.parts.items():
        name = program.reads
        with torch.no_grad():
            found = made(part, given[name]).result.numpy()
        replaced = {**tensors, **{n: tensor.dequantize() for n, tensor in frozen.items()}}
        expected = interpreter.embeddings(program, replaced, given[name].numpy())
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_activations_are_the_engines() -> None:
    """The patch embedding, quantized alone: its input is rounded as the engine rounds it."""
    made, name = module(), "vision_model.embeddings.patch_embedding.weight"
    given = rows(made.description, 2, 6)["patches"]
    exact = made("image", given).result
    made.round_activations({name: 64}, "a8")
    found = made("image", given).result
    codes, scales = engine_activations(given.flatten(0, 1).numpy(), 64)[:2]
    again = (codes.reshape(len(codes), -1, 64) * scales[..., None]).reshape(given.shape).astype(np.float32)
    made.round_activations({}, "a16")
    expected = made("image", torch.from_numpy(again)).result
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (found - exact).abs().max() > 1e-3


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
@pytest.mark.parametrize("more", [False, True])
def test_losses_are_their_formulas(family: str, more: bool) -> None:
    own, teacher = student(family), module(family)
    given = batch(own.description, more=more)
    out = PairTask(own, teacher, ALL)(given)
    assert set(out) == {"loss", "task", "fd", "icl", "ckd", "off"}
    total = sum(getattr(ALL, name) * value for name, value in out.items() if name != "loss")
    torch.testing.assert_close(out["loss"].detach(), total)
    with torch.no_grad():
        both = {n: torch.cat([given[n], given[f"more_{n}"]]) if more else given[n] for n in ("patches", "ids")}
        s, t = ((m("image", both["patches"], blocks=True), m("text", both["ids"], blocks=True)) for m in (own, teacher))
    unit = [[x.result.double().numpy() for x in side] for side in (s, t)]
    unit = [[x / np.linalg.norm(x, axis=1, keepdims=True) for x in side] for side in unit]
    fd = sum(((a - b) ** 2).sum(1).mean() for a, b in zip(*unit, strict=True))
    (si, st), (ti, tt) = [[x[:PAIRS] for x in side] for side in unit]
    groups, tau = given["groups"].numpy(), float(own.scale.detach())

    def ce(logits: Any) -> float:
        found = []
        for i, row in enumerate(logits):
            logs = row - np.log(np.exp(row - row.max()).sum()) - row.max()
            found.append(-np.mean([logs[j] for j in range(PAIRS) if groups[j] == groups[i]]))
        return float(np.mean(found))

    def soft(x: Any) -> Any:
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    task = (ce(tau * si @ st.T) + ce(tau * st @ si.T)) / 2
    if own.bias is not None:
        task = 0.0
        for i in range(PAIRS):
            for j in range(PAIRS):
                z = tau * si[i] @ st[j] + float(own.bias.detach())
                task += np.log1p(np.exp(-z if groups[i] == groups[j] else z)) / PAIRS
    icl = (ce(tau * si @ tt.T) + ce(tau * st @ ti.T)) / 2
    ckd = 0.0
    for p, q in ((ti @ tt.T, si @ st.T), (tt @ ti.T, st @ si.T)):
        p, q = soft(tau * p), soft(tau * q)
        ckd += float((p * np.log(p / q)).sum(1).mean()) / 2
    off = []
    for one, two in zip(s, t, strict=True):
        cos = [torch.cosine_similarity(a, b, dim=-1) for a, b in zip(one.blocks, two.blocks, strict=True)]
        off.append(np.mean([1 - float(c.mean()) for c in cos]))
    expected = {"fd": fd, "task": task, "icl": icl, "ckd": ckd, "off": np.mean(off)}
    for name, value in expected.items():
        np.testing.assert_allclose(float(out[name]), value, rtol=2e-4, atol=1e-5, err_msg=name)


def test_equal_captions_are_right_for_each_other() -> None:
    """In SigLIP's loss; in CLIP's, where equal rows share their softmax, it makes no difference."""
    own = student("siglip")
    given = batch(own.description) | {"groups": torch.arange(PAIRS)}
    alone = PairTask(own, None, ClipDistil(kind="clip", fd=0))
    given["ids"] = given["ids"][[0, 1, 2, 1, 3, 4, 0]]
    by_words = alone(given)["task"]
    torch.testing.assert_close(by_words, alone(given | {"groups": torch.tensor([0, 1, 2, 1, 3, 4, 0])})["task"])
    image, text = (own("image", given["patches"]).result, own("text", given["ids"]).result)
    unit, right = [clip_losses.normalised(x) for x in (image, text)], torch.eye(PAIRS, dtype=torch.bool)
    assert not torch.isclose(by_words, clip_losses.sigmoid(*unit, own.scale, own.bias, right))


def test_blocks_are_those_of_transformers() -> None:
    """Two of each tower, in order; padding behind a text's end is left out."""
    original, _, _ = tiny_towers.model("clip")
    made, given = module(), rows(module().description, 4, 8)
    with torch.no_grad():
        image = made("image", given["patches"], blocks=True).blocks
        text = made("text", given["ids"], blocks=True).blocks
        pixels = torch.from_numpy(tiny_towers.pixels(4, seed=8))
        wanted = original.vision_model(pixels, output_hidden_states=True).hidden_states[1:]
        texts = original.text_model(given["ids"], output_hidden_states=True).hidden_states[1:]
    ends = (given["ids"] == tiny_towers.END).int().argmax(1)
    assert len(image) == len(text) == 2
    for found, expected in zip(image, wanted, strict=True):
        torch.testing.assert_close(found, expected.flatten(0, 1), rtol=1e-3, atol=1e-4)
    for found, expected in zip(text, texts, strict=True):
        kept = torch.cat([row[: end + 1] for row, end in zip(expected, ends, strict=True)])
        torch.testing.assert_close(found, kept, rtol=1e-3, atol=1e-4)


def test_a_stored_teacher_is_a_live_one() -> None:
    own, teacher = student(), module()
    given = batch(own.description, more=True)
    settings = ClipDistil(kind="clip", task=1, fd=4, icl=1, ckd=1)
    live = PairTask(own, teacher, settings)(given)
    stored = PairTask(own, None, settings)({**given, **answers(teacher, given)})
    for name, value in live.items():
        torch.testing.assert_close(stored[name], value)


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    settings = ClipDistil(kind="clip", task=0, fd=1, ckd=1, off=1)
    out = PairTask(module(), module(), settings)(batch(module().description, more=True))
    assert out["loss"].abs() < 1e-5


def test_gradients_reach_what_is_trained_and_nothing_else() -> None:
    made = student()
    frozen = [name for name, p in made.named_parameters() if "position" in name or name == "logit_scale"]
    for name in frozen:
        made.get_parameter(name).requires_grad_(False)
    PairTask(made, module(), ALL)(batch(made.description))["loss"].backward()
    for name, parameter in made.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert reached == (name not in frozen and not name.endswith("k_proj.bias")) or name.endswith("k_proj.bias"), (
            name
        )


def arrays(towers: Model) -> dict[str, np.ndarray[Any, Any]]:
    given = {**rows(towers, 48, 9), "groups": torch.arange(48)}
    return {name: value.numpy() for name, value in {**given, **answers(module(), given)}.items()}


def test_a_short_training_lowers_fd(tmp_path: Path) -> None:
    made = student()
    how = Train(steps=30, batch=16, lr=2e-3, scale_lr=2e-3, norm_lr=1e-3, precision="float32", checkpoint_every=None)
    train(PairTask(made, None, STORED), arrays(made.description), how, tmp_path)
    fd = [record["parts"]["fd"] for record in read_journal(tmp_path / "journal.jsonl") if "parts" in record]
    assert np.mean(fd[-5:]) < 0.5 * np.mean(fd[:3])


def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    start, how = student(), Train(steps=6, batch=8, precision="float32", checkpoint_every=2)
    given, whole, parts = arrays(start.description), copy.deepcopy(start), copy.deepcopy(start)
    train(PairTask(whole, None, STORED), given, how, tmp_path / "whole")

    def stop(record: Any) -> None:
        if record["step"] == 5:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train(PairTask(parts, None, STORED), given, how, tmp_path / "parts", progress=stop)
    again = copy.deepcopy(start)
    result = train(PairTask(again, None, STORED), given, how, tmp_path / "parts")
    assert result.resumed == 4
    for (name, one), (_, two) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_recipe_fields() -> None:
    fields = {"name": "x", "rules": [{"quantizer": "l2"}], "train": {"steps": 1}}
    made = Recipe.parse({**fields, "distil": {"kind": "clip", "off": 0.5}})
    assert isinstance(made.distil, ClipDistil)
    assert Recipe.parse(json.loads(made.model_dump_json())) == made
    assert "kind" not in Recipe.parse({**fields, "distil": {}}).model_dump(mode="json")["distil"]
    for wrong, field in (({"kind": "clip", "kl": 1}, "distil.kl"), ({"top_l": 1}, "distil.top_l")):
        with pytest.raises(Exception, match=f"{field}: unknown field"):
            Recipe.parse({**fields, "distil": wrong})
    nothing = {"kind": "clip", "task": 0, "fd": 0}
    with pytest.raises(Exception, match="nothing would be learnt"):
        Recipe.parse({**fields, "distil": nothing})


def test_rounded_starts_give_the_module_their_codes() -> None:
    """What calibration or rounding found is what the student begins with."""
    made, recipe = module(), Recipe.parse({"rules": [{"quantizer": "learned"}], "group_size": "row"})
    plan = recipe.plan(made.description)
    tensors = {name: made.weight(name).detach().numpy().copy() for name in plan}
    known = {name: rounded(tensors[name], plan[name]) for name in made.description.linears}
    quantize_(made, {name: plan[name].quantizer for name in known}, known)
    for name, tensor in freeze(made).items():
        assert np.array_equal(tensor.codes, known[name].codes)
        assert np.array_equal(tensor.scale, known[name].scale)
