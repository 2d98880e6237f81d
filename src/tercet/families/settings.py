"""Checked reading of a transformers config: whatever the file holds, the answer is a sane value or one ModelError.

config.json comes from strangers, so nothing is used before its type and range are known: a bool is no number, a string
is no number, NaN and 10**400 are none either. `defaults` are what transformers assumes where a key is absent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from tercet.errors import ModelError

__all__ = ["Settings", "show"]

T = TypeVar("T")


class Settings:
    """A mapping whose values are checked as they are read.

    Args:
        values: the config, or a part of it.
        defaults: used where a key is absent (a key that holds null is present).
        where: the start of error messages, such as "config.json" or "config.json: rope_parameters".
        unused: keys that are known to change nothing.

    Attributes:
        reads: keys that were asked for; with `all`, what `tercet.families.unused` goes by.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        defaults: Mapping[str, Any],
        where: str = "config.json",
        unused: Iterable[str] = (),
    ) -> None:
        if not isinstance(values, Mapping):
            raise ModelError(f"{where} is {show(values)}; it must be an object")
        self.given = values
        self.values = {**defaults, **values}
        self.where = where
        self.unused = frozenset(unused)
        self.reads: set[str] = set()
        self._inner: list[Settings] = []

    def within(
        self, values: Mapping[str, Any], defaults: Mapping[str, Any], where: str, unused: Iterable[str] = ()
    ) -> Settings:
        """Settings of a part of this config."""
        self._inner.append(Settings(values, defaults, f"{self.where}: {where}", unused))
        return self._inner[-1]

    def all(self) -> Iterator[Settings]:
        """These and those within."""
        yield self
        for inner in self._inner:
            yield from inner.all()

    def raw(self, key: str) -> Any:
        """The value as it is, None where it is absent: for tests of presence, and for `part`."""
        self.reads.add(key)
        return self.values.get(key)

    def part(self, key: str) -> dict[str, Any]:
        """The object under `key`, empty where it is absent or null."""
        value = self.raw(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(key, "an object")
        return dict(value or {})

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(key, f"a whole number from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        value = self.raw(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.error(key, f"a number from {low:g} to {high:g}")  # NaN fails the comparison
        return float(value)

    def flag(self, key: str) -> bool:
        """A boolean; absent or null means false."""
        value = self.raw(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, "true or false")
        return bool(value)

    def numbers(self, key: str, count: int, low: float, high: float) -> list[float]:
        value = self.raw(key)
        if not isinstance(value, list) or len(value) != count:
            raise self.error(key, f"a list of {count} numbers")
        entries = Settings({str(i): entry for i, entry in enumerate(value)}, {}, f"{self.where}: {key}")
        return [entries.number(str(i), low, high) for i in range(count)]

    def choice(self, key: str, choices: Mapping[str, T]) -> T:
        """What `choices` holds for the string under `key`."""
        value = self.raw(key)
        if not isinstance(value, str) or value not in choices:
            raise self.error(key, "one of " + ", ".join(choices))
        return choices[value]

    def error(self, key: str, wanted: str) -> ModelError:
        """The error of a value that is absent or not what was wanted."""
        if key not in self.values:
            return ModelError(f"{self.where} has no {key}; it must be {wanted}")
        return ModelError(f"{self.where}: {key} is {show(self.values[key])}; it must be {wanted}")


def show(value: object) -> str:
    """A value in an error message: short, one line, and never a failure itself (huge integers have no repr)."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**64:
        return "a huge number"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:40] + "...")
    if value is None or isinstance(value, bool | int | float):
        return "null" if value is None else repr(value)
    return f"a {type(value).__name__}"
