"""JSON out of a file nobody vouches for: bounded, one meaning, one error type.

Python's parser accepts duplicate keys (the last wins), NaN, lone surrogates, and any depth up to its recursion limit;
each of these lets two readers see two different files, or one of them fall over. Here they are refused.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tercet.errors import FormatError

__all__ = ["MAX_JSON", "parse"]

MAX_JSON = 8 << 20
MAX_DEPTH = 64
MAX_VALUES = 8 << 20  # of "[]," 64 bytes of memory become of 3: brackets and commas are counted before they are built


def parse(raw: bytes, where: str, most: int = MAX_JSON) -> Any:
    """The value.

    Args:
        where: the start of error messages.
        most: bytes.

    Raises FormatError for anything but strict JSON, 64 levels deep and of eight million values at most.
    """
    if len(raw) > most:
        raise FormatError(f"{where}: {len(raw)} bytes of JSON; at most {most} are read")
    if raw.count(b"[") + raw.count(b"{") + raw.count(b",") > MAX_VALUES:
        raise FormatError(f"{where}: more than {MAX_VALUES} values in one file of JSON; do not trust it")
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant)
        _check(value)
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise FormatError(f"{where}: not Unicode: {error.reason}") from None
    except (ValueError, RecursionError) as error:  # JSONDecodeError, and integers of thousands of digits
        raise FormatError(f"{where}: not valid JSON: {str(error).splitlines()[0][:200]}") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"duplicate key {name[:80]!r}")
            seen.add(name)
    return result


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check(value: Any) -> None:
    """Depth, and strings that are Unicode (an escape can name half a surrogate pair)."""
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following += [*item, *item.values()]
            elif isinstance(item, list):
                following += item
            elif isinstance(item, str) and not item.isascii():
                item.encode("utf-8")
        level, depth = following, depth + 1
