"""The whole walk on tiny models of every family: better than rounding, stoppable, the same again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from tercet import families
from tercet.calibrate import calibrate, dequantized, rounded
from tercet.calibrate.blocks import Walk
from tercet.program import Model, Program, interpreter
from tercet.recipe import Calibrate, Planned, Recipe, Reconstruct
from tercet.tensor import IntTensor, TernaryTensor

SETTINGS = Calibrate(tokens=10240, context=64)


def _case(family: str = "llama", recipe: str = "w1.58", **overrides: Any) -> tuple[Any, ...]:
    _, config, tensors = tiny.model(family, **overrides)
    program = families.model(config).text
    windows = np.stack([tiny.ids(64, seed=seed) for seed in range(160)])
    plain = Recipe.load(recipe).model_copy(update={"rotate": False})  # tables in 8 bits depend on nothing
    return program, tensors, _plan(plain, program), windows


def _plan(recipe: Recipe, program: Program) -> dict[str, Planned]:
    return recipe.plan(Model(program.family, {"text": program}))


def _kl(program: Any, tensors: Any, solved: Any) -> float:
    ids = tiny.ids(64, seed=99)
    replaced = {**tensors, **{name: dequantized(tensor) for name, tensor in solved.items()}}
    teacher, student = (interpreter.logits(program, each, ids).astype(np.float64) for each in (tensors, replaced))
    teacher, student = (
        x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)
        for x in (teacher, student)
    )
    return float((np.exp(teacher) * (teacher - student)).sum(1).mean())


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_beats_rounding_on_unseen_tokens(family: str) -> None:
    program, tensors, plan, windows = _case(family)
    solved = calibrate(program, tensors, plan, windows, SETTINGS)
    assert set(solved) == {*plan, program.ops[-2].weight}
    assert all(isinstance(solved[name], TernaryTensor) for name in program.linears)
    assert isinstance(solved["model.embed_tokens.weight"], IntTensor)
    plain = {name: rounded(tensors[name], plan[name]) for name in plan}
    assert _kl(program, tensors, solved) < _kl(program, tensors, plain)


@pytest.mark.parametrize("quantizer", ["binary", "itf"])
def test_binary_and_shifted_levels_too(quantizer: str) -> None:
    program, tensors, _, windows = _case()
    plan = _plan(Recipe.model_validate({"rules": [{"quantizer": quantizer}], "group_size": 32}), program)
    solved = calibrate(program, tensors, plan, windows, SETTINGS)
    plain = {name: rounded(tensors[name], plan[name]) for name in plan}
    assert _kl(program, tensors, solved) < _kl(program, tensors, plain)
    first = solved[program.linears[0]]
    assert isinstance(first, TernaryTensor)
    assert (first.shift is not None) == (quantizer == "itf")


def test_blocks_may_be_kept_in_float() -> None:
    program, tensors, _, windows = _case()
    rules = [{"match": "model.layers.0.*", "keep": "float16"}, {"quantizer": "l2"}]
    plan = _plan(Recipe.model_validate({"rules": rules}), program)
    solved = calibrate(program, tensors, plan, windows, SETTINGS)
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(solved[name], tensors[name].astype(np.float16))


def test_stopped_and_started_again_gives_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, tensors, plan, windows = _case(num_hidden_layers=4)
    whole = calibrate(program, tensors, plan, windows, SETTINGS)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path, progress=stop)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    solved_now: list[str] = []
    solve = Walk._solve

    def counted(self: Walk, stage: Any, *rest: Any) -> Any:
        solved_now.extend(op.weight for op in stage.linears)
        return solve(self, stage, *rest)

    monkeypatch.setattr(Walk, "_solve", counted)
    resumed = calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    assert solved_now == [name for names in program.blocks[2:] for name in names]
    for name, tensor in whole.items():
        assert np.array_equal(dequantized(tensor), dequantized(resumed[name]))


def test_what_a_block_depends_on_is_its_name_in_the_cache(tmp_path: Path) -> None:
    program, tensors, plan, windows = _case()
    calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    tensors["model.layers.1.mlp.up_proj.weight"] *= 2
    calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 3  # the first block is still what it was
    calibrate(program, tensors, plan, windows, SETTINGS.model_copy(update={"sweeps": 0}), cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 5


def test_blocks_from_the_cache_cost_what_they_took(tmp_path: Path) -> None:
    program, tensors, plan, windows = _case()
    made: list[float] = []
    calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path, spent=made.append)
    taken: list[float] = []
    calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path, spent=taken.append)
    assert min(made) > 0
    assert len(made) == len(taken) == 3  # two blocks and the last norm
    assert made[:2] == taken[:2]


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", None])
def test_a_damaged_cache_file_is_calibrated_again(tmp_path: Path, damage: bytes | None) -> None:
    program, tensors, plan, windows = _case()
    whole = calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    for file in tmp_path.glob("*.npz"):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data if damage is None else damage)
    again = calibrate(program, tensors, plan, windows, SETTINGS, cache=tmp_path)
    assert all(np.array_equal(dequantized(tensor), dequantized(again[name])) for name, tensor in whole.items())


@pytest.mark.parametrize("blocks", [1, 2])
def test_reconstruction_beats_closed_forms(blocks: int) -> None:
    program, tensors, plan, windows = _case(num_hidden_layers=3)
    trained = SETTINGS.model_copy(
        update={"reconstruct": Reconstruct(blocks=blocks, epochs=20, lr=2e-2, scale_lr=1e-2, precision="float32")}
    )
    plain = calibrate(program, tensors, plan, windows, SETTINGS)
    solved = calibrate(program, tensors, plan, windows, trained)
    assert _kl(program, tensors, solved) < 0.95 * _kl(program, tensors, plain)
    norms = {name for name in program.weights if name.endswith("norm.weight")}
    assert set(solved) == {*plan, *norms}


@pytest.mark.parametrize("blocks", [1, 2])
def test_reconstruction_stopped_and_started_again_gives_the_same_bits(blocks: int, tmp_path: Path) -> None:
    program, tensors, plan, windows = _case(num_hidden_layers=4)
    settings = SETTINGS.model_copy(update={"tokens": 2048, "reconstruct": Reconstruct(blocks=blocks, epochs=2)})
    whole = calibrate(program, tensors, plan, windows[:32], settings)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(program, tensors, plan, windows[:32], settings, cache=tmp_path, progress=stop)
    again = calibrate(program, tensors, plan, windows[:32], settings, cache=tmp_path)
    assert again.keys() == whole.keys()
    for name, tensor in whole.items():
        assert np.array_equal(dequantized(again[name]), dequantized(tensor)), name
