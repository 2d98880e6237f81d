"""The whole comparison, or parts of it; rows are merged into benchmarks/results/latest.json as they come.

python -m speed [--quick] [--only PART ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from speed import matrices, whole
from speed.costs import costs, scaling
from speed.goals import standing
from speed.models import SHAPES
from speed.peers import PEERS
from speed.report import RESULT, ROOT
from speed.turns import Worker
from speed.whole import Entrant, Field, ours
from tercet.evaluate.machine import machine

LIBRARY = ROOT / "build" / "bench" / "libtercet_bench.so"
ABSENT = (
    "litespark-inference: runs one fixed model (BitNet b1.58 2B4T, downloaded from the Hugging Face hub) and takes"
    " neither single matrices nor weights of one's own",
    "ai-edge-litert: its int2 FULLY_CONNECTED has a scale a tensor or row, in a graph of its own format; it keeps a"
    " second copy of the weights and is compared where the product exports LiteRT files",
    "bitnet.cpp's I2_S: not on PyPI; the claim is about runtimes installable from there",
)

TERNARY_2B = [Entrant("llama.cpp", "TQ2_0", "Q4_0"), Entrant("ik_llama.cpp", "IQ2_BN_R4", "Q4_0_R8")]
SMOLLM2 = [Entrant("llama.cpp", "Q4_0", "Q4_0"), Entrant("ik_llama.cpp", "Q4_0_R8", "Q4_0_R8"),
           Entrant("ik_llama.cpp", "IQ2_BN", "Q4_0_R8")]  # fmt: skip
F16 = Entrant("llama.cpp", "F16", "F16")


class Bench:
    """The workers, started when first needed, and the settings of a run."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.rounds = 5
        self.threads = (1, 2)
        self.products = Worker(sys.executable, "products", str(LIBRARY))
        self.about = self.products.call("about")
        built = [peer for peer in PEERS if peer.about()]
        for peer in PEERS:
            if peer not in built:
                print(f"{peer.name} is not built: make bench-peers", file=sys.stderr)
        self.ggml = {peer.name: Worker(sys.executable, "ggml", str(peer.libraries)) for peer in built}
        self._field: Field | None = None

    @property
    def field(self) -> Field:
        if self._field is None:
            workers = {"tercet": Worker(sys.executable, "engine")}
            workers |= {name: Worker(sys.executable, name) for name in self.ggml}
            self._field = Field(workers, self.ggml, self.products, self.rounds)
        return self._field

    def mine(self, heads: bool = True) -> list[Entrant]:
        """Ours for the 2B model: row scales, per 64, the best head, t19; AVX-512 VNNI where it is not the default."""
        found = [ours(), ours(group=64)]
        if heads:
            found.append(ours(head="t2"))
        if "t19" in self.about["formats"]:
            found.append(ours("t19"))
        if self.about["isa"] != "avx512vnni":
            found.append(ours(isa="avx512vnni"))
        return found

    def having(self, entrants: list[Entrant]) -> list[Entrant]:
        return [entrant for entrant in entrants if entrant.ours or entrant.runtime in self.ggml]

    def matrices(self) -> Iterator[dict[str, Any]]:
        setting = matrices.Setting(self.products, self.ggml, self.rounds, 0.1 if self.quick else 0.25, not self.quick)
        for cols, rows in matrices.SHAPES:
            yield from matrices.measure(setting, cols, rows, (1, 8, 32, 128), self.threads)

    def decode(self) -> Iterator[dict[str, Any]]:
        for threads in self.threads:
            yield from whole.decode(self.field, "2b", self.having([*self.mine(), *TERNARY_2B]), threads, 12)
            small = self.having([ours(), ours(group=64), *SMOLLM2])
            yield from whole.decode(self.field, "smollm2", small, threads, 32)

    def prefill(self) -> Iterator[dict[str, Any]]:
        for threads in (2,) if self.quick else self.threads:
            entrants = self.having([*self.mine(heads=False), *TERNARY_2B])
            yield from whole.prefill(self.field, "2b", entrants, threads, 512)

    def growth(self) -> Iterator[dict[str, Any]]:
        small = self.having([ours(group=64), *SMOLLM2])
        lengths = (128, 1024) if self.quick else (128, 1024, 4096, 8192)
        sizes = (1, 8) if self.quick else (1, 4, 16, 64)
        yield from whole.by_context(self.field, "smollm2", small, 2, lengths)
        yield from whole.by_batch(self.field, "smollm2", small, 2, sizes)
        if not self.quick:
            for name in ("0.7b", "8b-blocks"):
                yield from whole.decode(self.field, name, self.having([ours(), *TERNARY_2B]), 2, 12)

    def costs(self) -> Iterator[dict[str, Any]]:
        yield from costs(self.field, SHAPES["2b"], ours(), self.having([F16, *TERNARY_2B]))

    def limits(self) -> dict[str, dict[str, float]]:
        """By threads: bytes or operations a second."""
        names = ("dram", "vnni", "amx", "fma")
        return {
            str(threads): {what: self.products.call("limit", what=what, threads=threads) for what in names}
            for threads in self.threads
        }


PARTS: dict[str, Callable[[Bench], Iterable[dict[str, Any]]]] = {
    "matrices": Bench.matrices, "decode": Bench.decode, "prefill": Bench.prefill, "growth": Bench.growth,
    "costs": Bench.costs,
}  # fmt: skip


def library() -> None:
    """Builds the benchmark's own library; nothing to do the second time."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source = Path(__file__).parent / "native"
    for command in (
        ["cmake", "-G", "Ninja", "-S", source, "-B", LIBRARY.parent, "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", LIBRARY.parent],
    ):
        subprocess.run(command, check=True, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL)


def identity(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a newer row replaces an older one by."""
    return tuple(row.get(key) for key in ("case", "metric", "threads", "isa", "model", "scales"))


def save(result: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Merges rows into the result on disk."""
    old = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else []
    new = {identity(row): row for row in rows}
    kept = [new.pop(identity(row), row) for row in old]
    result["rows"] = [*kept, *new.values()]
    result["rows"] = [row for row in result["rows"] if not row["case"].startswith("scaling_")]
    result["rows"] += scaling(result["rows"])
    result["goals"] = standing(result["rows"])
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def show(row: dict[str, Any]) -> None:
    share = f"{row['limit_share']:6.0%} {row['limit']}" if row.get("limit_share") else ""
    print(
        f"{row['case']:28} {row.get('model', ''):14} {row['threads']} {row.get('isa', ''):11}{row.get('scales', ''):16}"
        f" {row['ours']:9.4g} {row['metric']:12} {row['ratio']:6.2f}x {row['peer']} {row['peer_value']:.4g} {share}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="speed", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer types, prompts and sizes: minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure anew")
    options = parser.parse_args()
    library()
    bench = Bench(options.quick)
    about = {**machine(), "cpus": os.cpu_count(), "kernel": platform.release(), "isa": bench.about["isa"]}
    result = {
        "command": "make bench-quick" if options.quick else "make bench",
        "date": time.strftime("%Y-%m-%d"),
        "machine": about,
        "peers": [peer.about() for peer in PEERS if peer.about()],
        "absent": list(ABSENT),
        "rounds": bench.rounds,
        "limits": bench.limits(),
    }
    rows: list[dict[str, Any]] = []
    for part in options.only:
        for row in PARTS[part](bench):
            rows.append(row)
            show(row)
            save(result, rows)
    for goal in json.loads(RESULT.read_text(encoding="utf-8"))["goals"]:
        state = {True: "met", False: "MISSED", None: "not measured"}[goal["met"]]
        worst = "" if goal["worst"] is None else f"{goal['worst']:.2f}"
        print(f"{state:13} {worst:>7} of {goal['bound']:g}  {goal['goal']}")


if __name__ == "__main__":
    main()
