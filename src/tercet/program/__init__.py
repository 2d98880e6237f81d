"""Models as lists of operations, and the numpy interpreter that is the reference of every other reader."""

from tercet.program.original import Original, Stored
from tercet.program.program import Function, Model, ModelKind, Op, Picture, Program, Role, Rope, Row, Weight

__all__ = [
    "Function",
    "Model",
    "ModelKind",
    "Op",
    "Original",
    "Picture",
    "Program",
    "Role",
    "Rope",
    "Row",
    "Stored",
    "Weight",
]
