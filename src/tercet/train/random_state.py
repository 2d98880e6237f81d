"""Random states of a process as plain JSON: Python's, numpy's, torch's, and that of its GPU."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import numpy as np
import torch

__all__ = ["pack_state", "restore_state"]


def pack_state(device: torch.device) -> bytes:
    """JSON of all states."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - libraries may still use it
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [str(kind), np.asarray(keys).tolist(), *rest],
        "torch": _text(torch.get_rng_state()),
    }
    if device.type == "cuda":
        states["cuda"] = _text(torch.cuda.get_rng_state(device))
    return json.dumps(states).encode()


def restore_state(data: bytes, device: torch.device) -> None:
    """Sets what `pack_state` gave."""
    states = json.loads(data)
    version, keys, gauss = states["python"]
    random.setstate((version, tuple(keys), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(_tensor(states["torch"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(_tensor(states["cuda"]), device)


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
