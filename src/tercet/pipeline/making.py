"""What every stage of the pipeline is about: one source, one recipe, and what the recipe makes of each matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tercet import families
from tercet.pipeline.output_clamp import clamped
from tercet.pipeline.rotation import rotated_source
from tercet.program import Model
from tercet.progress import Progress, silent
from tercet.recipe import Calibrate, Planned, Recipe
from tercet.sources import Source

__all__ = ["Making", "Watch", "making"]


@dataclass(frozen=True)
class Watch:
    """How a caller follows long work.

    Attributes:
        step: called with (what, done, total).
        record: called with each record of training's journal and the number of its steps; `step` where there is none.
    """

    step: Progress = silent
    record: Callable[[Mapping[str, Any], int], None] | None = None

    def training(self, steps: int) -> Callable[[Mapping[str, Any]], None]:
        """What the training loop calls with its records."""

        def tell(record: Mapping[str, Any]) -> None:
            if self.record is not None:
                self.record(record, steps)
            else:
                self.step("distil", int(record["step"]), steps)

        return tell


@dataclass(frozen=True, eq=False)
class Making:
    """A model to be made; by `making`.

    Attributes:
        source: the original, rotated where the recipe says so.
        plan: what becomes of each matrix, by name.
    """

    source: Source
    recipe: Recipe
    plan: Mapping[str, Planned]

    @property
    def model(self) -> Model:
        """What is calibrated."""
        return self.source.model

    @property
    def calibrate(self) -> Calibrate | None:
        """How the model is calibrated; None where it is rounded, or keeps every matrix in integers or floats."""
        return self.recipe.calibrate if any(planned.quantizer for planned in self.plan.values()) else None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The packed model's config: the source's, and the clips that its quantizers ask for."""
        return clamped(self.source.config, self.model, self.plan)

    @cached_property
    def student(self) -> Model:
        """What is trained and packed: `model`, with its linears' outputs clipped where a quantizer asks for it."""
        return families.model(self.config)


def making(source: Source, recipe: Recipe) -> Making:
    """Raises at once what a later stage would raise after the work before it: RecipeError, ModelError, FormatError."""
    origin = source
    if recipe.rotate:
        roles = {name: weight.role for name, weight in source.model.weights.items()}
        planned = recipe.plan(source.model).items()
        four_bits = any(plan.keep == "int4" and roles[name] in ("embedding", "head") for name, plan in planned)
        origin = rotated_source(source, recipe.rotate, table=four_bits)
    made = Making(origin, recipe, recipe.plan(origin.model))
    _ = made.student
    source.check()
    source.tokenizer_files()
    return made
