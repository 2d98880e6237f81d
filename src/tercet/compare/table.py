"""The table of a comparison: as cells, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.evaluate.rows import number
from tercet.shown import in_markdown

__all__ = ["cells", "page"]

HEADINGS = (
    "", "method", "begins with", "perplexity", "x original", "KL", "top-1", "bits a weight (blocks)", "bits (all)",
    "file MB", "zeros", "CPU min", "lr", "marks",
)  # fmt: skip
STARTS = {("own", False): "rounding", ("own", True): "its own start", ("calibrated", True): "our calibration"}


def cells(result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and lines of `compare_methods`' result; the original comes first, rows have the plots' numbers."""
    original = result["original"]
    first = ("", "original", "", number(original["perplexity"]), "1.000", "0.000", "100.0%", "", "16.00")
    lines = [(*first, f"{original['file_mb']:.1f}", "", "", "", original["runs_on"])]
    return HEADINGS, lines + [(str(at), *_line(row)) for at, row in enumerate(result["rows"], start=1)]


def page(result: Mapping[str, Any]) -> str:
    """compare.md."""
    headings, lines = cells(result)
    rule = ("--:", "---", "---", *("--:" for _ in headings[3:-1]), "---")
    about = result["machine"]
    return "\n".join(
        [
            "# Methods compared",
            "",
            *("| " + " | ".join(map(in_markdown, line)) + " |" for line in (headings, rule, *lines)),
            "",
            result["protocol"],
            "",
            f"`{result['command']}`, Tercet {about['version']}, torch {about['packages']['torch']}, {about['cpu']},"
            f" {about['threads']} threads, {result['date']}.",
            "",
        ]
    )


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    start = STARTS.get((row["start"], row["trained"]), "calibration")
    if not row["runs"]:
        return (row["name"], start, *("-" for _ in HEADINGS[4:]), row["error"] or "not run")
    spread = "" if row["spread"] is None else f" ± {number(row['spread'])}"
    marks = list(row["marks"])
    if row["state"] != "done":
        marks.append(row["error"] or f"seeds so far: {row['seeds']}")
    if row["runs_on"] != "engine":
        marks.append(row["runs_on"])
    return (
        row["name"],
        start,
        number(row["perplexity"]) + spread,
        number(row["against_original"]),
        number(row["kl"]),
        f"{row['top1_agreement']:.1%}",
        _digits(row["bits_per_linear_weight"]),
        f"{row['bits_per_weight']:.2f}",
        f"{row['file_mb']:.1f}",
        "" if row["zero_share"] is None else f"{row['zero_share']:.0%}",
        f"{row['cpu_seconds'] / 60:.1f}",
        "" if row["lr"] is None else f"{row['lr']:.1e}",
        "; ".join(marks),
    )


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
