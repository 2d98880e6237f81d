"""Speed, memory and load time of one packed folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tercet.errors import EngineError
from tercet.evaluate.footprint import footprint
from tercet.evaluate.models import EngineModel
from tercet.evaluate.speed import speeds
from tercet.runtime import Engine

__all__ = ["bench"]


def bench(
    folder: str | Path,
    *,
    prefill: int = 512,
    decode: int = 128,
    rounds: int = 5,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """The fields of `Speed` and `Footprint`, and threads, isa and context.

    Raises EngineError where prompt and answer exceed the model's context.
    """
    memory = footprint(folder, threads)
    engine = Engine.open(Path(folder), threads=threads)
    if prefill + decode > engine.context:
        raise EngineError(f"{prefill} + {decode} tokens do not fit the model's context of {engine.context}; give fewer")

    def step(done: int, total: int) -> None:
        if progress is not None:
            progress("time rounds", done, total)

    speed = speeds({"engine": EngineModel(engine)}, prefill=prefill, decode=decode, rounds=rounds, progress=step)[
        "engine"
    ]
    about = {"threads": engine.threads, "isa": engine.isa, "context": engine.context}
    return {**speed.as_dict(), **memory.as_dict(), **about}
