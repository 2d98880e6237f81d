"""Outputs that a quantizer wants clipped (`QuantizerConfig.output_clip`), said in the packed model's config.json.

Training clips them by `quantize_`; the engine clips all linears of a range of blocks (`tercet.families.transforms`), so
that is what a recipe has to ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.errors import RecipeError
from tercet.program import Program
from tercet.recipe import Planned

__all__ = ["clipped"]


def clipped(config: Mapping[str, Any], program: Program, plan: Mapping[str, Planned]) -> dict[str, Any]:
    """The model's config with the clip and the blocks that have it; the same where no quantizer asks for one.

    Raises RecipeError where the linears of a block, or blocks in the middle, do not agree.
    """
    limits = {name: planned.quantizer.output_clip if planned.quantizer else None for name, planned in plan.items()}
    blocks = []
    for index, names in enumerate(program.blocks):
        found = {limits[name] for name in names}
        if len(found) > 1:
            raise RecipeError(f"block {index}: its linears do not clip their outputs alike; give them one quantizer")
        blocks.append(found.pop())
    having = [index for index, limit in enumerate(blocks) if limit is not None]
    if not having:
        return dict(config)
    first, end = having[0], having[-1] + 1
    if len({*blocks[first:end]}) > 1:
        raise RecipeError(f"blocks {first} to {end - 1} do not clip their outputs alike; give them one quantizer")
    own = {**config.get("tercet", {}), "clip": blocks[first]}
    return {**config, "tercet": own if end - first == len(blocks) else {**own, "blocks": [first, end]}}
