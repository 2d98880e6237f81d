"""What the table says of a packed folder beside its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tercet.evaluate.contents import contents
from tercet.program import Model

__all__ = ["facts"]


def facts(folder: Path, model: Model) -> dict[str, Any]:
    """Bits, shares and size, and "runs_on"."""
    inside, linears = contents(folder), set(model.linears)
    of_blocks = [tensor for tensor in inside.tensors if tensor.name in linears]
    return {
        # Of all the blocks' matrices, so that one kept in more bits counts as what it is.
        "bits_per_linear_weight": 8 * sum(t.bytes for t in of_blocks) / sum(t.weights for t in of_blocks),
        "bits_per_weight": inside.bits_per_weight,
        "ternary_share": inside.ternary_share,
        "zero_share": inside.zero_share,
        "file_mb": inside.file_mb,
        "runs_on": "engine",
    }
