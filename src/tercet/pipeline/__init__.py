"""Source to measured, packed folder: `quantize`, and what it reads and tells; `tune`.

Imported when first used, since both need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.pipeline.lessons import Data
    from tercet.pipeline.making import Watch
    from tercet.pipeline.run import Report, quantize
    from tercet.pipeline.tuning import tune

__all__ = ["Data", "Report", "Watch", "quantize", "tune"]

_HOMES = {
    "Data": "lessons",
    "Report": "run",
    "Watch": "making",
    "quantize": "run",
    "tune": "tuning",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tercet.pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tercet.pipeline.{_HOMES[name]}"), name)
