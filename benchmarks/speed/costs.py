"""What a model costs beside time a token: opening, the first token, memory, the file; and what a second thread brings.

Each reading is of a process of its own, so that nothing is warm but the page cache. Peers open in both their modes
(mapped, and read into memory): the quicker time counts for opening, the smaller growth for memory.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from speed.models import Shape
from speed.turns import Failed, Worker, median, rounds
from speed.whole import Entrant, Field, Runner, file_bytes

CONTEXT = 1024


def costs(field: Field, shape: Shape, mine: Entrant, peers: list[Entrant]) -> Iterator[dict[str, Any]]:
    """open_, first_, resident_, memory_..._f16, file_..._f16 and decode_..._f16 of one model."""
    found = {entrant: _alone(field, shape, entrant) for entrant in (mine, *peers)}
    sizes = {entrant: file_bytes(field.path(shape, entrant)) / 1e6 for entrant in found}
    yield _row(f"open_{shape.name}", "s", mine, {e: f["open"] for e, f in found.items()}, 2)
    yield _row(f"first_token_{shape.name}", "s", mine, {e: f["first"] for e, f in found.items()}, 2)
    yield _row(f"memory_{shape.name}", "MB", mine, {e: f["resident_mb"] for e, f in found.items()}, 2)
    yield _row(f"peak_memory_{shape.name}", "MB", mine, {e: f["peak_mb"] for e, f in found.items()}, 2)
    yield _row(f"file_{shape.name}", "MB", mine, sizes, 2)
    share = found[mine]["resident_mb"] / sizes[mine]
    yield {**_base(f"resident_{shape.name}", "resident MB / file MB", mine, 2), "ours": share, "peer": "its own file",
           "peer_value": 1.0, "ratio": 1 / share}  # fmt: skip
    f16 = next((peer for peer in peers if peer.kind == "F16"), None)
    if f16 is not None:
        both = (mine, f16)
        yield _row(f"memory_{shape.name}_f16", "MB", mine, {e: found[e]["resident_mb"] for e in both}, 2)
        yield _row(f"file_{shape.name}_f16", "MB", mine, {e: sizes[e] for e in both}, 2)
        with Runner(field, shape, [mine, f16], 2, CONTEXT) as runner:
            for entrant in runner.opened:
                runner.call(entrant, "fill", tokens=16)
            read = runner.read(lambda entrant: runner.call(entrant, "decode", tokens=6), "dram")
            yield from runner.rows(f"decode_{shape.name}_f16", "tokens/s", read, 1, "dram", 0)


def _alone(field: Field, shape: Shape, entrant: Entrant) -> dict[str, float]:
    """Opening and memory, each in fresh processes; the file is in the page cache."""
    path = str(field.path(shape, entrant))
    kind = ("engine",) if entrant.ours else (entrant.runtime,)
    modes: list[dict[str, Any]] = [{}] if entrant.ours else [{"mmap": True}, {"mmap": False}]
    opened, first = [], []
    for mode in modes:

        def turn(mode: dict[str, Any] = mode) -> float:
            worker = Worker(sys.executable, *kind)
            try:
                times = worker.call("open", key="model", path=path, threads=2, context=CONTEXT, **mode)
            finally:
                worker.close()
            first.append(times["first"])
            return float(times["open"])

        opened.append(median(rounds({"open": turn}, 3)["open"]))
    memory = [_memory(kind, path, mode) for mode in modes]
    return {"open": min(opened), "first": min(first), **min(memory, key=lambda found: found["resident_mb"])}


def _memory(kind: tuple[str, ...], path: str, mode: dict[str, Any]) -> dict[str, float]:
    worker = Worker(sys.executable, *kind)
    try:
        return dict(worker.call("memory", path=path, context=CONTEXT, **mode))
    finally:
        worker.close()


def _base(case: str, metric: str, mine: Entrant, threads: int) -> dict[str, Any]:
    return {"case": case, "metric": metric, "threads": threads, "isa": "", "model": f"{mine.kind}, head {mine.head}",
            "scales": mine.scales, "limit_share": None}  # fmt: skip


def _row(case: str, metric: str, mine: Entrant, values: dict[Entrant, float], threads: int) -> dict[str, Any]:
    """Less is better: the ratio is the best peer's over ours."""
    peers = {entrant.label: value for entrant, value in values.items() if entrant != mine}
    if not peers:
        raise Failed(f"{case}: no peer to compare with")
    best = min(peers, key=peers.__getitem__)
    return {
        **_base(case, metric, mine, threads), "ours": values[mine], "peer": best, "peer_value": peers[best],
        "ratio": peers[best] / values[mine], "peers": peers,
    }  # fmt: skip


def scaling(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """scaling_CASE: the second thread's gain; `reached` where it is 1.8x or 95 % of the 2-thread limit."""
    found = []
    for row in rows:
        kind = row["case"].startswith(("gem", "decode_", "prefill"))
        if not kind or row["threads"] != 2:
            continue
        same = ("case", "isa", "model", "scales")
        one = [r for r in rows if r["threads"] == 1 and all(r.get(key) == row.get(key) for key in same)]
        if not one:
            continue
        gain = row["ours"] / one[0]["ours"]
        found.append({
            "case": f"scaling_{row['case']}", "metric": "times", "threads": 2, "isa": row["isa"],
            "model": row.get("model"), "scales": row["scales"], "ours": gain, "peer": "1 thread", "peer_value": 1.0,
            "ratio": gain, "limit": row["limit"], "limit_share": row["limit_share"],
            "reached": float(gain >= 1.8 or row["limit_share"] >= 0.95),
        })  # fmt: skip
    return found
