"""What every family's builder does: it collects operations, the weights they read and the widths of the buffers."""

from __future__ import annotations

from typing import Any

from tercet.program import Op, Role, Weight

__all__ = ["Builder"]


class Builder:
    """The parts of a program so far. A linear's output is never its input; linears of one input stand together."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.weights: dict[str, Weight] = {}
        self.widths: dict[str, int] = {}

    def linear(
        self, source: str, target: str, name: str, columns: int, rows: int, biased: bool, role: Role = "linear"
    ) -> None:
        weight = self.matrix(f"{name}.weight", rows, columns, role)
        bias = self.vector(f"{name}.bias", rows) if biased else ""
        self.op("linear", (source,), target, rows, weight=weight, bias=bias)

    def matrix(self, name: str, rows: int, columns: int, role: Role) -> str:
        self.weights[name] = Weight((rows, columns), role)
        return name

    def vector(self, name: str, size: int) -> str:
        self.weights[name] = Weight((size,), "vector")
        return name

    def op(self, kind: Any, inputs: tuple[str, ...], output: str, width: int, **fields: Any) -> None:
        self.widths[output] = width
        self.ops.append(Op(kind, inputs, output, **fields))
