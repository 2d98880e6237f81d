"""What a family is: a name for people, and how its config becomes a `Model`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tercet.families.settings import Settings
from tercet.program import Model

__all__ = ["Family"]


@dataclass(frozen=True)
class Family:
    """A family.

    Attributes:
        title: for people.
        make: the model of a config, its keys not yet looked at.
        architecture: what a name in the config's `architectures` ends with.
        defaults: what transformers assumes where a key is absent.
        configs: keys that hold the configs of parts, such as "text_config".
        unused: keys of its configs that change nothing, beside those that change nothing in any family.
    """

    title: str
    make: Callable[[Settings], Model]
    architecture: str
    defaults: Mapping[str, Any]
    configs: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
