"""From a name or a path to plain data. YAML by the safe loader, and bounded: size, depth, no aliases, no key twice."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import yaml

from tercet.errors import RecipeError

__all__ = ["names", "read"]

MAX_BYTES = 1 << 18
MAX_DEPTH = 32
BOOLEAN, TEXT = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"
PLAIN = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "map", "null", "seq", "str"))


def names() -> list[str]:
    """The recipes that come with Tercet."""
    folder = files("tercet") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """The recipe's name and its fields. A path ends in .yaml, .yml or .json; a name is one of `names()`, in any case.

    Raises RecipeError where there is none, or it is too large, too deep or no YAML mapping.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".yaml", ".yml", ".json"):
        if name_or_path.lower() not in names():
            known = ", ".join(names())
            raise RecipeError(f"no recipe is called {name_or_path!r}; use {known}, or the path of a .yaml file")
        resource = files("tercet") / "recipes" / f"{name_or_path.lower()}.yaml"
        return name_or_path.lower(), _parse(name_or_path, resource.read_bytes())
    try:
        if not path.is_file():
            raise RecipeError(f"{path}: no such recipe file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    return path.stem, _parse(str(path), data)


def _parse(where: str, data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{where}: larger than {MAX_BYTES >> 10} KiB; this is no recipe")
    try:
        fields = yaml.load(data.decode(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RecipeError(f"{where}: {line}{error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:  # also UnicodeDecodeError, endless numbers
        raise RecipeError(f"{where}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(fields, dict) or not all(isinstance(key, str) for key in fields):
        raise RecipeError(f"{where}: a recipe is a mapping of fields, such as `rules:`")
    return fields


class _Loader(yaml.SafeLoader):
    """Aliases can blow a small file up, a repeated key hides the first, tags call for other types: all are refused."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = cast(Any, self).peek_event()  # untyped in the stubs
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are refused", problem_mark=mark)
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=mark)
        if getattr(event, "tag", None) not in (None, "!"):
            raise yaml.MarkedYAMLError(problem=f"tags ({event.tag}) are refused", problem_mark=mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is not None and node.tag not in PLAIN:  # a date, or what YAML merges: nothing a recipe holds
            node.tag = TEXT
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.MarkedYAMLError(problem=f"{min(twice)!r} is given twice", problem_mark=node.start_mark)
        for key in (key for key, _ in node.value if key.tag == BOOLEAN):
            key.tag = TEXT  # "off" is a loss here, which YAML 1.1 reads as false
        return super().construct_mapping(node, deep)
