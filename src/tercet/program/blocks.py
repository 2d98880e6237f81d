"""Where calibration stops in a program: the linears that read the same buffer are solved together, in order of use.

    block -> [ops, then q k v] [ops, then o] [ops, then gate up] [ops, then down] [ops]

Each stage sees inputs that come from everything before it already quantized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tercet.program import Op, Program

__all__ = ["Stage", "block_ops", "live", "residuals", "stages"]


@dataclass(frozen=True)
class Stage:
    """Operations to run, then linears of one input to solve (none at a block's end).

    Attributes:
        before: operations up to the linears; the linears themselves are the next stage's first ones.
        linears: they share `linears[0].inputs`.
    """

    before: tuple[Op, ...]
    linears: tuple[Op, ...]


def block_ops(program: Program) -> list[tuple[Op, ...]]:
    """The operations of each block: from after the block before it to the last that uses its linears' results.

    What comes before the first block (the embedding) belongs to it; the final norm and the head belong to none.
    """
    cuts = [0]
    for names in program.blocks:
        end = max(i for i, op in enumerate(program.ops) if op.weight in names) + 1
        for op in program.ops[end:]:
            if op.kind != "add" and op.inputs != (op.output,):
                break
            end += 1  # a norm in place and the sums of the residual still belong to the block
        cuts.append(end)
    return [program.ops[start:end] for start, end in pairwise(cuts)]


def stages(ops: Sequence[Op]) -> list[Stage]:
    """Cut a block's operations before each run of linears that share an input."""
    found: list[Stage] = []
    done = 0
    at = 0
    while at < len(ops):
        if ops[at].kind != "linear":
            at += 1
            continue
        end = at
        while end < len(ops) and ops[end].kind == "linear" and ops[end].inputs == ops[at].inputs:
            end += 1
        found.append(Stage(tuple(ops[done:at]), tuple(ops[at:end])))
        done = at
        at = end
    found.append(Stage(tuple(ops[done:]), ()))
    return found


def residuals(linear: Op, after: Sequence[Op]) -> list[str]:
    """Buffers, known when `linear` runs, that are added to its result and nothing else: the residual stream. A clip of
    the result counts for nothing: it is there for the few values that are far out.

    Args:
        after: the operations from `linear` on.
    """
    carried = linear.output
    written = {linear.output}
    joined: list[str] = []
    for op in after[1:]:
        if op.kind == "clip" and op.inputs == (carried,):
            carried = op.output
        elif carried in op.inputs:
            if op.kind != "add":
                break
            joined += [name for name in op.inputs if name != carried and name not in written]
            carried = op.output
            written.discard(carried)
        elif op.output == carried:
            break
        written.add(op.output)
    return joined


def live(ops: Sequence[Op]) -> set[str]:
    """Buffers that `ops` read before writing them."""
    needed: set[str] = set()
    for op in reversed(ops):
        needed.discard(op.output)
        needed.update(op.inputs)
    return needed
