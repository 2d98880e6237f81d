"""The pipeline stays small: short argument lists, and one way for every kind of model."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import tercet.pipeline

FOLDER = Path(tercet.pipeline.__file__).parent
ARGUMENTS, LINES = 6, 2200


def functions(source: str) -> Iterator[tuple[str, int]]:
    """Name of each function and number of its arguments, without self and cls."""
    tree = ast.parse(source)
    methods = {id(each) for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for each in kind.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            of = node.args
            count = sum(map(len, (of.posonlyargs, of.args, of.kwonlyargs))) + bool(of.vararg) + bool(of.kwarg)
            static = any(
                isinstance(each, ast.Name) and each.id == "staticmethod" for each in getattr(node, "decorator_list", ())
            )
            yield getattr(node, "name", "lambda"), count - (id(node) in methods and not static)


def test_arguments_are_counted() -> None:
    source = "class A:\n def f(self, a, /, b, *c, d, **e): ...\n @staticmethod\n def g(a): ...\nh = lambda a, b: a"
    assert dict(functions(source)) == {"f": 5, "g": 1, "lambda": 2}


def test_no_function_takes_many_arguments() -> None:
    files = sorted(FOLDER.rglob("*.py"))
    assert len(files) > 15
    many = {
        f"{file.relative_to(FOLDER)}: {name}": count
        for file in files
        for name, count in functions(file.read_text(encoding="utf-8"))
        if count > ARGUMENTS
    }
    assert not many


def test_it_has_few_lines() -> None:
    assert sum(len(file.read_text(encoding="utf-8").splitlines()) for file in FOLDER.rglob("*.py")) <= LINES
