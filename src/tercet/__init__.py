"""Tercet: a pretrained language model or CLIP, its weights made ternary, packed, and run fast on a CPU.

Names are imported when first used, so that `import tercet` stays cheap and never imports torch; only what needs torch
(`quantize`) does, when called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.artifact import Artifact
    from tercet.errors import EngineError, FormatError, ModelError, QuantizeError, RecipeError, TercetError
    from tercet.pipeline import quantize
    from tercet.recipe import Recipe
    from tercet.runtime import Engine, Sampling, Tokenizer
    from tercet.tensor import IntTensor, TernaryTensor

__all__ = [
    "Artifact",
    "Engine",
    "EngineError",
    "FormatError",
    "IntTensor",
    "ModelError",
    "QuantizeError",
    "Recipe",
    "RecipeError",
    "Sampling",
    "TercetError",
    "TernaryTensor",
    "Tokenizer",
    "quantize",
]
__version__ = "0.1.0"

_HOMES = {
    "Artifact": "tercet.artifact",
    "Engine": "tercet.runtime",
    "EngineError": "tercet.errors",
    "FormatError": "tercet.errors",
    "IntTensor": "tercet.tensor",
    "ModelError": "tercet.errors",
    "QuantizeError": "tercet.errors",
    "Recipe": "tercet.recipe",
    "RecipeError": "tercet.errors",
    "Sampling": "tercet.runtime",
    "TercetError": "tercet.errors",
    "TernaryTensor": "tercet.tensor",
    "Tokenizer": "tercet.runtime",
    "quantize": "tercet.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tercet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
