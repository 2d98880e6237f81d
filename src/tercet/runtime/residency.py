"""What a model takes of memory, by one rule: the process's growth from before opening to after 128 tokens.

Counted are the process's own pages and its share of those it shares (PSS): so the mapped file counts, all of it, since
every page of the weights is touched; a format converted at open counts twice. The KV cache is listed apart. Linux only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tercet.errors import EngineError
from tercet.packing import PackedTensor
from tercet.runtime.text.engine import Engine

__all__ = ["Memory", "measure"]

PAGE = 4096


@dataclass(frozen=True)
class Memory:
    """In MB of 10^6 bytes.

    Attributes:
        resident_mb: growth, without the KV cache.
        kv_mb: KV cache written.
        process_mb: PSS of the whole process at the end.
        anonymous_mb: the part of it that no file backs.
    """

    resident_mb: float
    kv_mb: float
    process_mb: float
    anonymous_mb: float


def measure(open_engine: Callable[[], Engine], tokens: int = 128) -> tuple[Engine, Memory]:
    """Open an engine, run `tokens` tokens through it one by one, and say what that took.

    Args:
        open_engine: called once, after the first reading.
        tokens: fewer where the engine's context is shorter.

    Raises EngineError where the system does not tell.
    """
    before = _pss()
    engine = open_engine()
    _touch(engine)
    sequence = engine.new_sequence()
    for i in range(min(tokens, engine.context)):
        engine.step([(sequence, [i % engine.vocab_size])])
    after, kv = _pss(), sequence.kv_bytes
    growth = after["Pss"] - before["Pss"] - kv
    return engine, Memory(growth / 1e6, kv / 1e6, after["Pss"] / 1e6, after["Anonymous"] / 1e6)


def _touch(engine: Engine) -> None:
    tensors = engine.artifact.tensors.values() if engine.artifact is not None else ()
    for tensor in tensors:
        parts = (tensor.codes, tensor.scale, tensor.shift) if isinstance(tensor, PackedTensor) else (tensor,)
        for part in parts:
            if part is not None:
                int(np.add.reduce(np.ascontiguousarray(part).reshape(-1).view(np.uint8)[::PAGE], dtype=np.int64))


def _pss() -> dict[str, int]:
    """Bytes by name, of this process."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    except OSError as error:
        raise EngineError(f"memory cannot be measured here: {error.strerror} (/proc/self/smaps_rollup)") from None
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
