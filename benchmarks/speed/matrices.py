"""Single matrices: y = W x against every peer's ternary types, weights from DRAM.

All variants of one shape, number of tokens and threads are timed in the same rounds, with the limits of the machine
among them; rows compare each of the product's variants with the fastest type of any peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from speed.turns import Failed, Worker, median, quartiles, rounds

ROTATE = 320_000_000  # bytes of weights, three times the last-level cache
SHAPES = ((2560, 6912), (4096, 14336))  # columns, rows: BitNet 2B, Llama 8B
PEERS = {
    "llama.cpp": ("TQ2_0", "Q4_0"),
    "ik_llama.cpp": ("IQ2_BN", "IQ2_BN_R4"),
}
MORE = {"llama.cpp": ("TQ1_0", "Q8_0", "F16"), "ik_llama.cpp": ("IQ1_BN", "Q4_0_R8")}
TERNARY = ("TQ2_0", "TQ1_0", "IQ2_BN", "IQ2_BN_R4", "IQ1_BN", "Q2_0")


@dataclass(frozen=True)
class Variant:
    """One of the product's ways to hold and multiply a matrix; `group` 0 is a scale a row."""

    kind: str
    group: int
    isa: str

    @property
    def scales(self) -> str:
        return f"per {self.group} columns" if self.group else "per row"

    def case(self, n: int, cols: int, rows: int) -> str:
        product = "gemv" if n == 1 else f"gemm{n}"
        group = f"_g{self.group}" if self.group else ""
        avx2 = "_avx2" if self.isa == "avx2" else ""
        return f"{product}_{self.kind}{group}{avx2}_{cols}x{rows}"


def variants(n: int, formats: list[str], default: str) -> list[Variant]:
    """The default instruction set, and AVX-512 VNNI and AVX2 where they are not it."""
    isas = [default, *({"avx512vnni"} - {default})]
    found = [Variant("t2", group, isa) for group in (0, 64) for isa in isas]
    if "t19" in formats:
        found += [Variant("t19", 0, isa) for isa in isas]
    if n == 1 and default != "avx2":
        found.append(Variant("t2", 0, "avx2"))
    return found


@dataclass
class Setting:
    """Who takes part, and how long: `workers` by participant, seconds of a turn, rounds."""

    ours: Worker
    peers: Mapping[str, Worker]
    rounds: int
    seconds: float
    more: bool  # the peers' other types too


def measure(
    setting: Setting, cols: int, rows: int, tokens: tuple[int, ...], threads: tuple[int, ...]
) -> Iterator[dict[str, Any]]:
    """The rows of one shape."""
    about = setting.ours.call("about")
    for n in tokens:
        turns: dict[str, Callable[[], float]] = {}
        facts: dict[str, Any] = {}
        mine = variants(n, about["formats"], about["isa"])
        for variant in mine:
            key = f"{variant.kind} g{variant.group} {variant.isa} n{n}"
            facts[key] = setting.ours.call(
                "prepare", key=key, kind=variant.kind, rows=rows, cols=cols, group=variant.group, n=n, rotate=ROTATE,
                isa=variant.isa,
            )  # fmt: skip
        for name, worker in setting.peers.items():
            for kind in PEERS[name] + (MORE[name] if setting.more else ()):
                key = f"{name} {kind} n{n}"
                try:
                    facts[key] = worker.call("prepare", key=key, kind=kind, rows=rows, cols=cols, n=n, rotate=ROTATE)
                except Failed as error:
                    facts[key] = {"error": str(error)}
        for count in threads:
            turns = {
                key: _turn(_owner(setting, key), key, count, setting.seconds)
                for key, fact in facts.items()
                if "bytes" in fact
            }
            for what in ("dram", "vnni", "amx"):
                turns[what] = _limit(setting.ours, what, count)
            read = rounds(turns, setting.rounds)
            for key in turns.keys() - read.keys():
                facts[key] = {"error": "failed in its turn"}
            for variant in mine:
                yield row(variant, n, cols, rows, count, read, facts)
    for worker in (setting.ours, *setting.peers.values()):
        worker.call("clear")


def _owner(setting: Setting, key: str) -> Worker:
    return setting.peers.get(key.split()[0], setting.ours)


def _turn(worker: Worker, key: str, threads: int, seconds: float) -> Callable[[], float]:
    return lambda: float(worker.call("time", key=key, threads=threads, seconds=seconds))


def _limit(worker: Worker, what: str, threads: int) -> Callable[[], float]:
    return lambda: float(worker.call("limit", what=what, threads=threads))


def row(
    variant: Variant, n: int, cols: int, rows: int, threads: int, read: dict[str, list[float]], facts: dict[str, Any]
) -> dict[str, Any]:
    """One line of the result: rates are G weights a second for one token, G operations a second for more."""
    work = cols * rows * (1 if n == 1 else 2 * n) / 1e9
    key = f"{variant.kind} g{variant.group} {variant.isa} n{n}"
    rates = {name: [work / time for time in times] for name, times in read.items() if name in facts}
    others = {name: median(values) for name, values in rates.items() if name.split()[0] in PEERS}
    asked = {name: rate for name, rate in others.items() if _counts(name.split()[1], variant.isa)}
    best = max(asked, key=asked.__getitem__)
    ours = median(rates[key])
    bandwidth = facts[key]["bytes"] / median(read[key]) / 1e9
    peak = median(read["amx" if variant.isa == "amx" else "vnni"]) / 1e9
    limit = median(read["dram"]) / 1e9
    return {
        "case": variant.case(n, cols, rows),
        "metric": "G weights/s" if n == 1 else "GOPS",
        "threads": threads,
        "isa": variant.isa,
        "scales": variant.scales,
        "ours": ours,
        "ours_quartiles": quartiles(rates[key]),
        "peer": " ".join(best.split()[:2]),
        "peer_scales": peer_scales(best.split()[1]),
        "peer_value": asked[best],
        "peer_quartiles": quartiles(rates[best]),
        "ratio": ours / asked[best],
        "limit": "DRAM" if n == 1 else "AMX peak" if variant.isa == "amx" else "VNNI peak",
        "limit_value": limit if n == 1 else peak,
        "limit_share": bandwidth / limit if n == 1 else ours / peak,
        "gb_s": bandwidth,
        "peers": {" ".join(name.split()[:2]): rate for name, rate in others.items()},
        "failed": {name: fact["error"] for name, fact in facts.items() if "bytes" not in fact},
        "places": {" ".join(name.split()[:2]): fact["place"] for name, fact in facts.items() if "place" in fact},
    }


def _counts(kind: str, isa: str) -> bool:
    """Which of the peers' types a row is compared with: the ternary ones, and TQ2_0 alone for AVX2."""
    return kind == "TQ2_0" if isa == "avx2" else kind in TERNARY


def peer_scales(kind: str) -> str:
    """How fine a type's scales are."""
    if kind in ("IQ2_BN", "IQ2_BN_R4"):
        return "per row, float32"
    if kind == "IQ1_BN":
        return "per row, float16"
    return {"TQ2_0": "per 256 columns", "TQ1_0": "per 256 columns", "Q2_0": "per 64 columns", "F16": "none"}.get(
        kind, "per 32 columns"
    )
