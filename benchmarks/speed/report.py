"""A result as docs/speed.md and docs/speed.svg: goals first, then every row.

python -m speed.report        (part of make docs)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from speed.goals import standing

ROOT = Path(__file__).parent.parent.parent
RESULT = ROOT / "benchmarks" / "results" / "latest.json"
PAGE, PLOT = ROOT / "docs" / "speed.md", ROOT / "docs" / "speed.svg"

INTRODUCTION = """# Speed beside llama.cpp and ik_llama.cpp

Written by `make docs` from what `{command}` measured: {cpu}, {cpus} CPUs, {date}. One interleaved run, medians of
{rounds} rounds (quartiles in [the raw result](../benchmarks/results/latest.json)), huge pages for everyone, threads
pinned, float32 in and float32 out; [the rules](../benchmarks/PROTOCOL.md). Whole models have random weights of the real
shapes. `ratio` is ours against the fastest type of any peer that the case is about.

{peers}
"""


def page(result: dict[str, Any]) -> str:
    """The markdown page."""
    machine = result["machine"]
    lines = [
        INTRODUCTION.format(
            command=result["command"], cpu=machine["cpu"], cpus=machine["cpus"], date=result["date"],
            rounds=result["rounds"], peers="\n".join(_peer(peer) for peer in result["peers"]),
        ),
        "## Goals",
        "",
        "| goal | at least / most | measured, worst to best | |",
        "| --- | --: | --: | --- |",
        *(_goal(goal) for goal in standing(result["rows"])),
        "",
        "![ratios](speed.svg)",
        "",
    ]  # fmt: skip
    for title, start in SECTIONS:
        rows = [row for row in result["rows"] if row["case"].startswith(start)]
        if rows:
            lines += [f"## {title}", "", *_table(rows), ""]
    lines += ["## Limits of the machine", "", *_limits(result["limits"]), ""]
    if result.get("absent"):
        lines += ["## Not in the tables", "", *(f"- {line}" for line in result["absent"]), ""]
    return "\n".join(lines)


SECTIONS = (
    ("One token: y = W x, weights from DRAM, G weights/s", ("gemv",)),
    ("Several tokens: y = W x, G operations/s", ("gemm",)),
    ("Whole models: decoding and prompts, tokens/s", ("decode", "prefill")),
    ("Opening, memory, files", ("open", "first", "resident", "memory", "file", "peak")),
    ("1 to 2 threads", ("scaling",)),
)


def _peer(peer: dict[str, Any]) -> str:
    return f"- {peer['name']}: {peer['package']}, {' '.join(peer['flags'])}; {peer['compiler']}"


def _goal(goal: dict[str, Any]) -> str:
    if goal["met"] is None:
        return f"| {goal['goal']} | {goal['bound']:g} | not measured | |"
    span = f"{goal['worst']:.2f} to {goal['best']:.2f}"
    return f"| {goal['goal']} | {goal['bound']:g} | {span} | {'met' if goal['met'] else '**missed**'} |"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| case | threads | kernels | our scales | ours | best peer | its scales | it | ratio | of limit | others |",
        "| --- | --: | --- | --- | --: | --- | --- | --: | --: | --: | --- |",
    ]
    for row in rows:
        share = f"{row['limit_share']:.0%} {row['limit']}" if row.get("limit_share") else ""
        others = ", ".join(f"{name} {value:.3g}" for name, value in row.get("peers", {}).items() if name != row["peer"])
        model = f" ({row['model']})" if row.get("model") else ""
        lines.append(
            f"| {row['case']}{model} | {row['threads']} | {row.get('isa', '')} | {row.get('scales', '')}"
            f" | {row['ours']:.4g} | {row['peer']} | {row.get('peer_scales', '')} | {row['peer_value']:.4g}"
            f" | {row['ratio']:.2f} | {share} | {others} |"
        )
    return lines


def _limits(limits: dict[str, Any]) -> list[str]:
    lines = ["| threads | DRAM GB/s | VNNI GOPS | AMX GOPS | fp32 FMA GFLOPS |", "| --: | --: | --: | --: | --: |"]
    for threads, found in limits.items():
        cells = " | ".join(f"{found[name] / 1e9:.4g}" for name in ("dram", "vnni", "amx", "fma"))
        lines.append(f"| {threads} | {cells} |")
    return lines


def plot(result: dict[str, Any]) -> None:
    """docs/speed.svg: the ratio of every row with a goal's kind of case, 2 threads."""
    kinds = ("gem", "decode_", "prefill")
    rows = [row for row in result["rows"] if row["threads"] == 2 and row["case"].startswith(kinds)]
    rows = [row for row in rows if "_f16" not in row["case"]]
    names = [f"{row['case']} {row.get('model', '')} {row['isa']}" for row in rows]
    with matplotlib.rc_context({"svg.hashsalt": "tercet", "svg.fonttype": "none", "font.size": 7}):
        figure = Figure(figsize=(8, 1 + 0.17 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(rows))
        axes.barh(places, [row["ratio"] for row in rows], color="#3b6ea5")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set(yticks=list(places), yticklabels=names, xlabel="times the fastest peer, 2 threads")
        axes.invert_yaxis()
        axes.grid(True, axis="x", alpha=0.3)
        figure.savefig(PLOT, format="svg", metadata={"Date": None})


def write(result: dict[str, Any]) -> None:
    """Both files."""
    PAGE.write_text(page(result), encoding="utf-8")
    plot(result)


if __name__ == "__main__":
    write(json.loads(RESULT.read_text(encoding="utf-8")))
