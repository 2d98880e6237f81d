"""What a packed model's linears compute beside W x + b: config.json["model"]["tercet"], absent in every original.

    rotate   x -> H x before each linear of a block, whose stored weight is W H (`tercet.program.hadamard`): true for
             blocks of the largest power of two that divides the linear's width, or the columns of a block, such as 64
    stream   true: the residual stream holds x H, and attention's values v H per head (`tercet.program.folding`); then
             `rotate` is about the last linear of each MLP alone, the only one whose input is not rotated already, and
             true for a block of the whole width where there is such a matrix
    table    true: rows of the embedding and of the head are stored as E H, in one block of the whole width where there
             is such a matrix: rows are rotated back behind the look-up, and what the head reads is rotated
    clip     y -> min(max(y, -limit), limit) after each, its bias added: the layer of Crulis et al.
    blocks   [first, end): the transformer blocks that have them; all by default

But for `table`, head and embedding never have them. A model of several parts has an object of these for each part, by
its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tercet.families.settings import Settings
from tercet.program import Model
from tercet.program.hadamard import order

__all__ = ["NONE", "Transforms", "read_transforms", "transformed"]

PARTS = frozenset({"image", "text"})
LARGEST = 1 << 17  # columns of a block: no model is wider


@dataclass(frozen=True)
class Transforms:
    """What the linears of blocks `first` to `end` - 1 have.

    Attributes:
        rotate: columns of a block of the rotation; 0: as many as the width allows; None: not rotated.
        clip: limit of the results; None: not clipped.
        stream: whether the residual stream is rotated, in all blocks.
        table: whether embedding and head are.
    """

    rotate: int | None = None
    clip: float | None = None
    first: int = 0
    end: int = 0
    stream: bool = False
    table: bool = False


NONE = Transforms()


def read_transforms(config: Settings, layers: int, part: str = "") -> Transforms:
    """What the linears of a model's part have; ModelError where it is malformed.

    Args:
        layers: blocks of the part.
        part: its name, where the model has several: each then has an object of its own under that name.
    """
    given, where = config.part("tercet"), "config.json: tercet"
    if part:
        if unknown := sorted(str(key)[:40] for key in given.keys() - PARTS):
            raise Settings(given, {}, where).error(unknown[0], "absent: the model has no such part")
        given, where = Settings(given, {}, where).part(part), f"{where}: {part}"
    if unknown := sorted(str(key)[:40] for key in given.keys() - {"rotate", "stream", "table", "clip", "blocks"}):
        raise Settings(given, {}, where).error(unknown[0], "absent: it is not known here")
    own = Settings(given, {}, where)
    first, end = 0, layers
    if own.raw("blocks") is not None:
        blocks = own.raw("blocks")
        if not isinstance(blocks, list) or len(blocks) != 2:
            raise own.error("blocks", "[first, end)")
        named = Settings({"0": blocks[0], "1": blocks[1]}, {}, f"{where}: blocks")
        first = named.integer("0", 0, layers - 1)
        end = named.integer("1", first + 1, layers)
    clip = None if own.raw("clip") is None else own.number("clip", 1e-6, 1e6)
    stream, table = (own.raw(word) is not None and own.flag(word) for word in ("stream", "table"))
    if stream and clip is not None:
        raise own.error("clip", "absent where the residual stream is rotated: the limit is of what is not")
    return Transforms(_rotate(own), clip, first, end, stream, table)


def transformed(config: Mapping[str, Any], model: Model, part: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a model, a part of which has these `fields` too."""
    own: dict[str, Any] = dict(config.get("tercet", {}))
    if len(model.parts) > 1:
        own[part] = {**own.get(part, {}), **fields}
    else:
        own |= fields
    return {**config, "tercet": own}


def _rotate(own: Settings) -> int | None:
    value = own.raw("rotate")
    if value is None or isinstance(value, bool):
        return 0 if value else None
    block = own.integer("rotate", 2, LARGEST)
    if not order(block):
        raise own.error("rotate", "true, false or columns of a block that can be rotated, such as a power of two")
    return block
