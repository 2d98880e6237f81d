"""Both towers of tiny models calibrated: nearer to the original on unseen pictures and texts than rounded ones."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_towers
from tercet import families
from tercet.calibrate import calibrate, dequantized, rounded
from tercet.program import Program, interpreter
from tercet.program.patches import patches
from tercet.recipe import Calibrate, Planned, Recipe
from tercet.tensor import IntTensor, TernaryTensor

SETTINGS = Calibrate(tokens=2048)
ALL = Recipe.parse({"rules": [{"role": ["linear", "embedding"], "quantizer": "l2"}], "group_size": "row"})


def _towers(family: str) -> list[tuple[Program, Any, NDArray[Any], NDArray[Any]]]:
    """Program, tensors, rows to calibrate on and others, of each tower."""
    _, config, tensors = tiny_towers.model(family)
    made = families.model(config)
    pictures = [patches(tiny_towers.pixels(count, seed=seed), made.pixels.patch) for seed, count in ((1, 96), (2, 8))]
    texts = [tiny_towers.texts(count, seed=seed) for seed, count in ((1, 192), (2, 8))]
    return [(made.image, tensors, *pictures), (made.text, tensors, *texts)]


def _plan(program: Program, family: str = "clip", recipe: Recipe = ALL) -> dict[str, Planned]:
    """Of one of a model's towers."""
    planned = recipe.plan(families.model(tiny_towers.config(family)))
    return {name: each for name, each in planned.items() if name in program.weights}


def _error(program: Program, tensors: Any, solved: Any, rows: NDArray[Any]) -> float:
    """1 - mean cosine of the embeddings."""
    replaced = {**tensors, **{name: dequantized(tensor) for name, tensor in solved.items()}}
    one, other = (interpreter.embeddings(program, each, rows) for each in (tensors, replaced))
    return 1 - float(((one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)).mean())


@pytest.mark.parametrize("family", tiny_towers.FAMILIES)
def test_beats_rounding_on_what_it_has_not_seen(family: str) -> None:
    for program, tensors, seen, unseen in _towers(family):
        plan = _plan(program, family)
        solved = calibrate(program, tensors, plan, seen, SETTINGS)
        assert set(solved) == set(plan)
        for name, weight in program.weights.items():
            if weight.role in ("linear", "embedding"):
                assert isinstance(solved[name], TernaryTensor)
            elif weight.role == "head":
                assert isinstance(solved[name], IntTensor)
            elif weight.role == "position":
                assert solved[name].dtype == np.float16
        plain = {name: rounded(tensors[name], plan[name]) for name in plan}
        worst = 1 if program.blocks[-1][0].startswith("vision_model.head") else 0.9  # a probe's q sees one row only
        assert _error(program, tensors, solved, unseen) < worst * _error(program, tensors, plain, unseen)


def test_what_follows_a_texts_end_does_not_count() -> None:
    program, tensors, seen, _ = _towers("clip")[1]
    plan, other = _plan(program), seen.copy()
    for row in other:
        end = int((row == tiny_towers.END).argmax())
        row[end + 1 :] = np.arange(3, 3 + len(row) - end - 1)
    one, two = (calibrate(program, tensors, plan, rows, SETTINGS) for rows in (seen, other))
    for name in plan:
        assert np.array_equal(dequantized(one[name]), dequantized(two[name])), name


def test_a_ternary_embedding_is_what_later_blocks_are_calibrated_behind() -> None:
    """The token table is rounded before the walk goes on, not after it."""
    program, tensors, seen, _ = _towers("clip")[1]
    with_table = calibrate(program, tensors, _plan(program), seen, SETTINGS)
    linears = Recipe.parse({"rules": [{"quantizer": "l2"}, {"keep": "float32"}], "group_size": "row"})
    without = calibrate(program, tensors, _plan(program, recipe=linears), seen, SETTINGS)
    assert any(not np.array_equal(dequantized(with_table[n]), dequantized(without[n])) for n in program.linears)
