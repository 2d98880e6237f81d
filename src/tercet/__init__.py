"""Tercet: a pretrained language model or CLIP, its weights made ternary, packed, and run fast on a CPU.

Names are imported when first used, so that `import tercet` stays cheap and never imports torch; only what needs torch
(`quantize`, `tune`) does, when called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.artifact import Artifact
    from tercet.errors import EngineError, FormatError, ModelError, QuantizeError, RecipeError, TercetError
    from tercet.evaluate.bench import bench
    from tercet.evaluate.contents import contents
    from tercet.evaluate.machine import machine
    from tercet.evaluate.verify import verify
    from tercet.pipeline import Data, Watch, quantize, tune
    from tercet.program import Model
    from tercet.recipe import Recipe
    from tercet.runtime import Batch, Embedder, Engine, Sampling, Tokenizer
    from tercet.tensor import IntTensor, TernaryTensor

_HOMES = {
    "Artifact": "tercet.artifact",
    "Batch": "tercet.runtime",
    "Data": "tercet.pipeline",
    "Embedder": "tercet.runtime",
    "Engine": "tercet.runtime",
    "EngineError": "tercet.errors",
    "FormatError": "tercet.errors",
    "IntTensor": "tercet.tensor",
    "Model": "tercet.program",
    "ModelError": "tercet.errors",
    "QuantizeError": "tercet.errors",
    "Recipe": "tercet.recipe",
    "RecipeError": "tercet.errors",
    "Sampling": "tercet.runtime",
    "TercetError": "tercet.errors",
    "TernaryTensor": "tercet.tensor",
    "Tokenizer": "tercet.runtime",
    "Watch": "tercet.pipeline",
    "bench": "tercet.evaluate.bench",
    "contents": "tercet.evaluate.contents",
    "machine": "tercet.evaluate.machine",
    "quantize": "tercet.pipeline",
    "tune": "tercet.pipeline",
    "verify": "tercet.evaluate.verify",
}

__all__ = [
    "Artifact",
    "Batch",
    "Data",
    "Embedder",
    "Engine",
    "EngineError",
    "FormatError",
    "IntTensor",
    "Model",
    "ModelError",
    "QuantizeError",
    "Recipe",
    "RecipeError",
    "Sampling",
    "TercetError",
    "TernaryTensor",
    "Tokenizer",
    "Watch",
    "bench",
    "contents",
    "machine",
    "quantize",
    "tune",
    "verify",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tercet' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
