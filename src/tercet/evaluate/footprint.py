"""Memory and load time of a model, measured in a process of its own.

In a process that already ran other models, freed memory is used again and the growth comes out too small. The rule is
`tercet.runtime.residency`'s; torch models are measured by the same rule, KV cache included (transformers does not tell
it apart).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tercet.artifact import is_artifact
from tercet.errors import TercetError

__all__ = ["Footprint", "footprint"]

TOKENS = 128


@dataclass(frozen=True)
class Footprint:
    """MB are 10^6 bytes.

    Attributes:
        resident_mb: growth by opening the model and running 128 tokens, KV cache apart.
        kv_mb: that cache.
        process_mb: the whole process afterwards; anonymous_mb the part of it that no file backs.
        load_s: seconds to open the model: imports done, the file in the page cache.
    """

    resident_mb: float
    kv_mb: float
    process_mb: float
    anonymous_mb: float
    load_s: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def footprint(model: str | Path, threads: int | None = None) -> Footprint:
    """Opens a packed folder in the engine, or a source in torch, in a fresh process, and runs 128 tokens.

    Raises TercetError where that fails.
    """
    command = [sys.executable, "-m", "tercet.evaluate.footprint", str(model), str(threads or 0)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TercetError(f"{model}: measuring its memory failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return Footprint(**json.loads(done.stdout.splitlines()[-1]))


def _of_packed(folder: Path, threads: int | None) -> Footprint:
    from tercet.runtime import Engine, measure

    seconds = []

    def opened() -> Engine:
        begin = time.perf_counter()
        engine = Engine.open(folder, threads=threads)
        seconds.append(time.perf_counter() - begin)
        return engine

    _, memory = measure(opened, TOKENS)
    return Footprint(**asdict(memory), load_s=seconds[0])


def _of_source(name: str, threads: int | None) -> Footprint:
    from tercet import sources
    from tercet.evaluate.originals import FloatModel, set_threads

    set_threads(threads)
    source = sources.resolve(name)
    before, begin = _memory(), time.perf_counter()
    model = FloatModel(source.pretrained())
    load_s = time.perf_counter() - begin
    model.start()
    for token in range(TOKENS):
        model.step(np.array([token]))
    after = _memory()
    return Footprint(after["Pss"] - before["Pss"], 0.0, after["Pss"], after["Anonymous"], load_s)


def _memory() -> dict[str, float]:
    """MB of this process by kind."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}


def _main() -> None:
    name, threads = sys.argv[1], int(sys.argv[2]) or None
    found = _of_packed(Path(name), threads) if is_artifact(Path(name)) else _of_source(name, threads)
    print(json.dumps(found.as_dict()))


if __name__ == "__main__":
    _main()
