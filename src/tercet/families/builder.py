"""What every family's builder does: it collects operations, the weights they read and the widths of the buffers."""

from __future__ import annotations

from typing import Any

from tercet.errors import ModelError
from tercet.families.transforms import NONE, Transforms
from tercet.program import Op, Role, Weight
from tercet.program.hadamard import largest_block, widest_block

__all__ = ["Builder"]


class Builder:
    """A program so far. A linear's output is never its input; linears of one input stand together.

    Attributes:
        transforms: what the linears of the block at hand have (`tercet.families.transforms`).
        stream: whether the residual stream is rotated.
        blocks: for each block that has ended, the names of its linears.
    """

    def __init__(self, transforms: Transforms) -> None:
        self.ops: list[Op] = []
        self.weights: dict[str, Weight] = {}
        self.widths: dict[str, int] = {}
        self.blocks: list[tuple[str, ...]] = []
        self.transforms = NONE
        self.stream = transforms.stream
        self._chosen = transforms
        self._first = 0

    def begin_block(self) -> None:
        """The operations from here on are the next block's."""
        chosen = self._chosen
        self.transforms = chosen if chosen.first <= len(self.blocks) < chosen.end else NONE
        self._first = len(self.ops)

    def end_block(self) -> None:
        self.blocks.append(tuple(op.weight for op in self.ops[self._first :] if op.kind == "linear"))
        self.transforms = NONE

    def rotate(self, buffer: str, target: str = "", *, inner: bool = False) -> str:
        """The input of a block's linears, where the model's are rotated and the stream's rotation is not in it: in
        place, or into `target`.

        Returns the buffer that the linears read.
        """
        width, chosen = self.widths[buffer], self.transforms.rotate
        if chosen is None or (self.stream and not inner):
            return buffer
        block = chosen or (widest_block(width) if self.stream else largest_block(width))
        if width % block:
            raise ModelError(
                f"config.json: tercet: rotate is {block}; it must divide the width of each linear: {width}"
            )
        if block == 1:
            return buffer
        self.op("rotate", (buffer,), target or buffer, width, dim=block)
        return target or buffer

    @property
    def table(self) -> bool:
        """Whether the embedding and the head are stored rotated."""
        return self._chosen.table

    def turn(self, buffer: str) -> None:
        """Into the basis of the residual stream where that is rotated, or out of it: H is its own inverse."""
        if self.stream:
            width = self.widths[buffer]
            self.op("rotate", (buffer,), buffer, width, dim=widest_block(width))

    def clip(self, *buffers: str) -> None:
        """The results of a block's linears, where the model's are clipped."""
        for buffer in buffers if self.transforms.clip is not None else ():
            self.op("clip", (buffer,), buffer, self.widths[buffer], limit=self.transforms.clip)

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
