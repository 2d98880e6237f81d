"""Models as lists of operations, and the numpy interpreter that is the reference of every other reader."""

from tercet.program.program import Function, Op, Program, Role, Rope, Row, Towers, Weight

__all__ = ["Function", "Op", "Program", "Role", "Rope", "Row", "Towers", "Weight"]
