"""A tower without the work that nobody sees: behind its last attention only one row of a sequence is used.

    h -> q, k, v -> attention -> a;  x += linear(a);  x += mlp(norm(x));  pick(x)
    becomes   pick(h) -> q,  h -> k, v -> attention -> a;  x' = pick(x);  x' += linear(a);  x' += mlp(norm(x'))

What follows an attention works row by row, so the embedding is the same; of ViT-B/16's work 7 % is saved. Causal towers
are left as they are: there a query's row says which keys it sees. It is for running a model, not for calibrating one,
whose statistics are the better for the other rows.
"""

from __future__ import annotations

from dataclasses import replace

from tercet.program import Op, Program

__all__ = ["narrowed"]

STREAM, QUERY = "x of one row", "h of one row"


def narrowed(program: Program) -> Program:
    """The same embeddings from fewer rows; the program itself where there is nothing to save."""
    ops = program.ops
    attention = max((i for i, op in enumerate(ops) if op.kind == "attention"), default=-1)
    end = max((i for i, op in enumerate(ops) if op.kind == "pick"), default=-1)
    if not 0 <= attention < end or ops[attention].causal:
        return program
    query = max(i for i in range(attention) if ops[i].output == ops[attention].inputs[0])
    pick, first = ops[end], ops[query]
    stream, source = pick.inputs[0], first.inputs[0]
    made = [
        *ops[:query],
        replace(pick, inputs=(source, *pick.inputs[1:]), output=QUERY),
        replace(first, inputs=(QUERY,)),
        *ops[query + 1 : attention + 1],
        replace(pick, output=STREAM),
        *(_renamed(op, stream) for op in ops[attention + 1 : end]),
        *(_renamed(op, pick.output) for op in ops[end + 1 :]),
    ]
    widths = {**program.widths, QUERY: program.widths[source], STREAM: program.widths[stream]}
    return replace(program, ops=tuple(made), widths=widths)


def _renamed(op: Op, name: str) -> Op:
    def of(buffer: str) -> str:
        return STREAM if buffer == name else buffer

    return replace(op, inputs=tuple(of(buffer) for buffer in op.inputs), output=of(op.output))
