"""The student of a plan: what its linears read is rounded where the engine rounds it, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
import tiny_towers
from tercet import families
from tercet.calibrate import dequantized, rounded
from tercet.pipeline.student import build_student
from tercet.program.patches import patches
from tercet.recipe import Recipe

ROWS = {
    "llama": {"text": tiny.ids(12)[None]},
    "phi": {"text": tiny.ids(12)[None]},
    "clip": {"text": tiny_towers.texts(2), "image": patches(tiny_towers.pixels(2), tiny_towers.VISION["patch_size"])},
}


@pytest.mark.parametrize("family", ROWS)
@pytest.mark.parametrize(("keep", "rounds"), [("float16", False), ("float32", False), ("int8", True)])
def test_inputs_of_linears_kept_in_floats_are_not_rounded(family: str, keep: str, rounds: bool) -> None:
    """In each part a linear behind an activation is kept; all others are ternary, but for what is no linear."""
    source = tiny_towers if family == "clip" else tiny
    _, config, tensors = source.model(family)
    model = families.model(config)
    last = ("down_proj.weight", "fc2.weight")
    kept = [next(name for name in program.linears if name.endswith(last)) for program in model.parts.values()]
    rules = [{"match": name, "keep": keep} for name in kept]
    rules += [{"role": "linear", "quantizer": "learned"}, {"keep": "float32"}]
    plan = Recipe.parse({"rules": rules, "group_size": "row"}).plan(model)
    known = {name: rounded(np.array(tensors[name]), planned) for name, planned in plan.items()}
    student = build_student(model, tensors, plan, known, "a8")
    rows = {part: torch.from_numpy(given) for part, given in ROWS[family].items()}

    def results() -> dict[str, torch.Tensor]:
        with torch.no_grad():
            return {part: student(part, given).result for part, given in rows.items()}

    found = results()
    every = {name: model.weights[name].shape[1] for name in model.linears}
    for groups, same in ((every, rounds), ({n: width for n, width in every.items() if n not in kept}, not rounds)):
        student.round_activations(groups, "a8")
        for part, result in results().items():
            assert torch.equal(found[part], result) == same, part
    for name in kept:
        assert np.array_equal(student.weight(name).detach().numpy(), dequantized(known[name]))
