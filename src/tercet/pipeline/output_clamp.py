"""Results that a quantizer wants clipped (`QuantizerConfig.output_clip`), said in the packed model's config.json.

The program clips all linears of a range of blocks (`tercet.families.transforms`), so that is what a recipe has to ask
for, of each part of the model by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.errors import RecipeError
from tercet.families.transforms import transformed
from tercet.program import Model, Program
from tercet.recipe import Planned

__all__ = ["clamped"]


def clamped(config: Mapping[str, Any], model: Model, plan: Mapping[str, Planned]) -> dict[str, Any]:
    """The model's config with clips and the blocks that have them; the same where no quantizer asks for one.

    Raises RecipeError where the linears of a block, or blocks in the middle, do not agree, or a linear outside of the
    blocks is to be clipped.
    """
    made = dict(config)
    for part, program in model.parts.items():
        if fields := _fields(program, plan):
            made = transformed(made, model, part, fields)
    return made


def _fields(program: Program, plan: Mapping[str, Planned]) -> dict[str, Any]:
    limits = {name: planned.quantizer.output_clip if planned.quantizer else None for name, planned in plan.items()}
    blocks = []
    for index, names in enumerate(program.blocks):
        found = {limits[name] for name in names}
        if len(found) > 1:
            raise RecipeError(f"block {index}: its linears do not clip their outputs alike; give them one quantizer")
        blocks.append(found.pop())
    inside = {name for names in program.blocks for name in names}
    for op in program.ops:
        if op.kind == "linear" and op.weight not in inside and limits[op.weight] is not None:
            raise RecipeError(f"{op.weight}: only linears of blocks clip their outputs; give it another quantizer")
    having = [index for index, limit in enumerate(blocks) if limit is not None]
    if not having:
        return {}
    first, end = having[0], having[-1] + 1
    if len({*blocks[first:end]}) > 1:
        raise RecipeError(f"blocks {first} to {end - 1} do not clip their outputs alike; give them one quantizer")
    return {"clip": blocks[first], **({} if end - first == len(blocks) else {"blocks": [first, end]})}
