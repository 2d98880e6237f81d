"""`Recipe`: the whole experiment but for the model it is applied to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from tercet.errors import RecipeError
from tercet.program import Model, ModelKind, Program
from tercet.recipe.planning import Group, Planned, plan
from tercet.recipe.reading import read
from tercet.recipe.settings import Calibrate, ClipDistil, Distil, Evaluate, Rotate, Rule, Settings, TernaryFormat, Train

__all__ = ["Recipe"]


def _kind(value: Any) -> str:
    """A language model's `distil` says no kind."""
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    return "clip" if kind == "clip" else "text"


AnyDistil = Annotated[Annotated[Distil, Tag("text")] | Annotated[ClipDistil, Tag("clip")], Discriminator(_kind)]


class Recipe(Settings, frozen=True):
    """What to make of a model. `Recipe.load("w1.58")` is the default one.

    Attributes:
        name, description: for people; a file that has no name is called after itself.
        rules: the first that matches a matrix decides what it becomes.
        group_size: input columns that share a scale, wherever a quantizer does not say it itself: 128, 64, 32, "row",
            or "auto": the largest of these that divides every width it is for.
        rotate: whether inputs of the blocks' linears are rotated (`tercet.program.hadamard`), and their weights to
            match: true, at run time; "folded", folded into the weights as far as the family allows it, which is worse.
        format: how ternary codes are stored where a rule does not say it. Binary ones are stored as b1.
        calibrate: None for plain rounding.
        distil, train: what the calibrated (or rounded) model learns, and how; both or neither. `distil` with
            `kind: clip` is for models of pictures and texts.
        evaluate: how the result is compared with the original.
    """

    name: str = Field(default="custom", min_length=1)
    description: str = ""
    rules: tuple[Rule, ...]
    group_size: Group = "auto"
    rotate: Rotate = False
    format: TernaryFormat = "t2"
    calibrate: Calibrate | None = Calibrate()
    distil: AnyDistil | None = None
    train: Train | None = None
    evaluate: Evaluate = Evaluate()

    @field_validator("rules")
    @classmethod
    def _any_rule(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not rules:
            raise ValueError("give at least one rule")
        return rules

    @model_validator(mode="after")
    def _trained_on_something(self) -> Recipe:
        if (self.distil is None) != (self.train is None):
            raise ValueError("`distil` says what is learnt and `train` how: give both, or neither")
        return self

    @classmethod
    def load(cls, name_or_path: str | Path) -> Recipe:
        """A recipe that comes with Tercet, by name in any case; or a .yaml, .yml or .json file.

        Raises RecipeError, one line that names the field.
        """
        name, fields = read(name_or_path)
        return cls.parse({"name": name, **fields}, str(name_or_path))

    @classmethod
    def parse(cls, fields: dict[str, Any], where: str = "recipe") -> Recipe:
        """From plain data, such as `model_dump(mode="json")` gives. Raises RecipeError that starts with `where`."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise RecipeError(f"{where}: {_one_line(error)}") from None

    def changed(self, *, tokens: int | None = None, seed: int | None = None, eval_tokens: int | None = None) -> Recipe:
        """The recipe with other numbers of calibration and evaluation where they are given; where a window of the
        evaluation would be longer than all its tokens, it is all of them. Raises RecipeError."""
        fields = self.model_dump(mode="json")
        parts = (("calibrate", {"tokens": tokens, "seed": seed}), ("evaluate", {"tokens": eval_tokens}))
        for part, given in parts:
            if fields[part] is not None:
                fields[part] |= {key: value for key, value in given.items() if value is not None}
        fields["evaluate"]["context"] = min(fields["evaluate"]["context"], fields["evaluate"]["tokens"])
        return Recipe.parse(fields)

    def plan(self, model: Model) -> dict[str, Planned]:
        """What becomes of each matrix of a model, by name.

        Raises RecipeError where a rule matches nothing, a linear has no rule, a group does not divide a width, `distil`
        is for another kind of model or names a block or more logits than there are, or a setting would not be read.
        """
        _refuse_unread(self, model.kind)
        if isinstance(self.distil, Distil):
            _refuse_beyond(self.distil, model.text)
        # Four bits are enough for a table that is rotated and fitted; of one that is not they cost a tenth.
        fitted = self.calibrate is not None and self.rotate is not False
        return plan(self.rules, self.group_size, self.format, model, fitted=fitted)


UNREAD = {  # settings that mean nothing to an image-text model, which reads pictures and captions, each whole
    "calibrate": ("context", "text"),
    "train": ("context",),
    "evaluate": ("tokens", "context", "text"),
}
NAMES = {"text": "a language model", "pair": "an image-text model"}


def _refuse_unread(recipe: Recipe, kind: ModelKind) -> None:
    learns = "pair" if isinstance(recipe.distil, ClipDistil) else "text"
    if recipe.distil is not None and learns != kind:
        better = "write `kind: clip` under `distil`" if kind == "pair" else "leave `distil.kind` out"
        raise RecipeError(f"{recipe.name}: distils {NAMES[learns]}, and this is {NAMES[kind]}; {better}")
    for part, names in UNREAD.items() if kind == "pair" else ():
        settings = getattr(recipe, part)
        for name in names if settings is not None else ():
            if getattr(settings, name) != type(settings).model_fields[name].default:
                raise RecipeError(f"{recipe.name}: {part}.{name} is not read for an image-text model; leave it out")


def _refuse_beyond(distil: Distil, program: Program) -> None:
    count = len(program.blocks)
    beyond = [index for index in distil.blocks or () if not -count <= index < count]
    if beyond:
        raise RecipeError(f"distil.blocks: {beyond[0]} is no block of this model; they are 0 to {count - 1}")
    if (distil.top_k or 0) > program.vocab_size:
        raise RecipeError(f"distil.top_k: {distil.top_k} is more than the {program.vocab_size} logits of this model")


def _one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False, include_input=False)
    where = list(first["loc"])
    if where[:1] == ["distil"] and where[1:2] in (["text"], ["clip"]):
        del where[1]  # which of both it was read as
    field = ".".join(str(part) for part in where)
    what = "unknown field" if first["type"] == "extra_forbidden" else first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others)} more)" if others else ""
    return " ".join(f"{field}: {what}{more}".split())[:500]
