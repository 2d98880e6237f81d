"""Rules applied to a model: what each matrix becomes, decided and checked before any work starts.

    matrix -> the first rule that matches -> quantizer (or keep), group size, stored format

Matrices of role embedding or head that no rule matches become int4 in a language model whose tables are fitted, int8
elsewhere (with row scales where the group does not divide their width), tables of positions float16; a linear that none
matches is an error, and so is a rule that never decides anything. Vectors (norms, biases) stay float32 and are not
planned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from tercet.errors import RecipeError
from tercet.program import Model
from tercet.quantizers import QuantizerConfig
from tercet.recipe.settings import Keep, Rule, TernaryFormat
from tercet.tensor import GROUP_SIZES

__all__ = ["Group", "Planned", "plan"]

Group = Literal["auto", 128, 64, 32, "row"]
FORMATS: dict[Keep, Literal["q8", "q4", "f16", "f32"]] = {
    "int8": "q8",
    "int4": "q4",
    "float16": "f16",
    "float32": "f32",
}
UNRULED = {  # what no rule matches
    "embedding": Rule(keep="int8"),
    "head": Rule(keep="int8"),
    "position": Rule(keep="float16"),
}
TABLE = Rule(role=("embedding", "head"), keep="int4")


@dataclass(frozen=True)
class Planned:
    """What one matrix becomes.

    Attributes:
        quantizer: its config, `group_size` set; None where it is kept.
        keep: "int8", "int4", "float16" or "float32"; None where it is quantized.
        group_size: input columns that share a scale; the width where scales are per row or tensor, or there are none.
        format: of `tercet.packing`: t2, t19, t5, b1, q8, q4, f16 or f32.
    """

    quantizer: QuantizerConfig | None
    keep: Keep | None
    group_size: int
    format: str


def plan(
    rules: Sequence[Rule], group: Group, format: TernaryFormat, model: Model, *, fitted: bool = False
) -> dict[str, Planned]:
    """What becomes of each matrix of the model, in its order. Raises RecipeError where rules and model do not fit.

    Args:
        fitted: whether 4-bit tables are fitted to what calibration reads (`tercet.calibrate.tables`).
    """
    chosen = _choose(rules, model)
    if fitted and model.kind == "text" and any(rule.quantizer for rule in chosen.values()):
        chosen = {
            name: TABLE if rule in (UNRULED["embedding"], UNRULED["head"]) and rule not in rules else rule
            for name, rule in chosen.items()
        }
    formats = {name: _format(name, rule, format) for name, rule in chosen.items()}
    widths = {name: model.weights[name].shape[1] for name in chosen}
    if group == "auto":
        takers = [name for name, rule in chosen.items() if rule in rules and _takes_group(rule)]
        group = _auto([widths[name] for name in takers], "t19" in [formats[name] for name in takers])
    planned: dict[str, Planned] = {}
    for name, rule in chosen.items():
        size = (rule.quantizer.group_size if rule.quantizer else None) or group
        quantizer = rule.quantizer.model_copy(update={"group_size": size}) if rule.quantizer else None
        if rule not in rules and (size in ("row", "tensor") or widths[name] % int(size)):
            rule, size = UNRULED[model.weights[name].role], "row"
        if rule.keep in ("float16", "float32") or size in ("row", "tensor"):
            planned[name] = Planned(quantizer, rule.keep, widths[name], formats[name])
            continue
        if widths[name] % int(size):
            fits = [str(each) for each in GROUP_SIZES if widths[name] % each == 0]
            better = ", ".join([*fits, "row"])
            raise RecipeError(f"{name}: width {widths[name]} is not a multiple of group_size {size}; use {better}")
        if formats[name] == "t19" and size != 128:
            raise RecipeError(f"{name}: t19 stores row scales or group_size 128, not {size}; use t2")
        planned[name] = Planned(quantizer, rule.keep, int(size), formats[name])
    return planned


def _choose(rules: Sequence[Rule], model: Model) -> dict[str, Rule]:
    """The rule of each matrix; a tied head is the embedding, planned once."""
    chosen: dict[str, Rule] = {}
    reached: set[int] = set()
    decided: set[int] = set()
    for name, weight in model.weights.items():
        if weight.role == "vector":
            continue
        matching = [i for i, r in enumerate(rules) if weight.role in r.roles and fnmatchcase(name, r.match)]
        reached.update(matching)
        if matching:
            decided.add(matching[0])
            chosen[name] = rules[matching[0]]
        elif weight.role == "linear":
            raise RecipeError(f"no rule matches {name}; end the rules with one that matches '*'")
        else:
            chosen[name] = UNRULED[weight.role]
    for index, rule in enumerate(rules):
        where = f"rule {index + 1} ({rule.match!r}, {' or '.join(rule.roles)})"
        if index not in reached:
            raise RecipeError(f"{where} matches no matrix of this model; see `match` and `role`")
        if index not in decided:
            raise RecipeError(f"{where} comes too late: rules before it match all that it matches; move it up")
    return chosen


def _format(name: str, rule: Rule, default: TernaryFormat) -> str:
    if rule.keep:
        return FORMATS[rule.keep]
    if rule.quantizer and rule.quantizer.two_levels:
        return rule.format or "b1"
    format = rule.format or default
    if format == "b1":
        raise RecipeError(f"{name}: b1 stores binary codes only; use t2, or the binary quantizer")
    return format


def _takes_group(rule: Rule) -> bool:
    if rule.quantizer:
        return rule.quantizer.group_size is None
    return rule.keep in ("int8", "int4")


def _auto(widths: Sequence[int], large_only: bool) -> Literal[128, 64, 32, "row"]:
    """The largest group that divides every width, "row" where none does. (t19 has none but 128.)"""
    for size in (128,) if large_only else GROUP_SIZES:
        if all(width % size == 0 for width in widths):
            return size  # type: ignore[return-value]
    return "row"
