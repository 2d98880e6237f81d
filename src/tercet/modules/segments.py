"""A program cut into what is called as one: its transformer blocks, and what lies before, between and behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.program import Op, Program
from tercet.program.blocks import block_ops, live

__all__ = ["Segment", "segments"]


@dataclass(frozen=True, eq=False)
class Segment:
    """Operations in a row.

    Attributes:
        path: what a block's tensors' names begin with, such as "model.layers.0"; "" where the segment is no block.
        live: buffers that are read behind it.
        ends_block: whether a transformer block ends here; a pooling head is none.
    """

    program: Program
    path: str
    ops: tuple[Op, ...]
    live: frozenset[str]
    ends_block: bool


def segments(program: Program) -> list[Segment]:
    """All operations of a program; of a language model all but the head, which is computed apart."""
    ops = program.ops[:-1] if program.gives == "logits" else program.ops
    found: list[tuple[str, Sequence[Op]]] = []
    done = 0
    for names, block in zip(program.blocks, block_ops(program), strict=True):
        path = _common(names)
        first = next(i for i, op in enumerate(block) if op.weight.startswith(f"{path}."))
        found += [("", block[:first]), (path, block[first:])]
        done += len(block)
    found.append(("", ops[done:]))
    made, at = [], 0
    for path, each in found:
        at += len(each)
        if each:
            behind = live(program.ops[at:])
            wanted = behind if at < len(program.ops) else {program.gives}
            ends = bool(path) and each[-1].output != "embedding"
            made.append(Segment(program, path, tuple(each), frozenset(wanted), ends))
    return made


def _common(names: Sequence[str]) -> str:
    """The longest path that all names begin with."""
    parts = [name.split(".")[:-1] for name in names]
    same = 0
    while all(len(each) > same and each[same] == parts[0][same] for each in parts):
        same += 1
    return ".".join(parts[0][:same])
