"""A description of the machine and the versions, for `tercet info` and beside every measurement."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import tercet
from tercet import kernels

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """Instruction sets (best first), the one in use, threads, and versions."""
    return {
        "version": tercet.__version__,
        "cpu": _cpu(),
        "isas": kernels.backends(),
        "isa": kernels.default_backend(),
        "threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in ("numpy", "torch", "transformers")},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"
