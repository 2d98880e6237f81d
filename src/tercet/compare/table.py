"""The table of a comparison: as cells, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.evaluate.rows import NUMBERS, number, score, words
from tercet.shown import in_markdown

__all__ = ["cells", "page"]

FACTS = ("bits a weight (blocks)", "bits (all)", "ternary", "zeros", "file MB", "CPU min", "lr", "marks")
STARTS = {
    ("own", False): "rounding",
    ("own", True): "its own start",
    ("calibrated", False): "calibration",
    ("calibrated", True): "our calibration",
    ("original", True): "the original",
}


def cells(result: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and lines of `compare_methods`' result; the original comes first, rows have the plots' numbers."""
    original, shown = result["original"], result["shown"]
    headings = ("", "method", "begins with", *(words(name) for name in shown), *FACTS)
    scores = [score(name, original["scores"][name]) if name in original["scores"] else "" for name in shown]
    facts = ("", f"{original['bits_per_weight']:.2f}", "", "", _mb(original["file_mb"]), "", "", original["runs_on"])
    lines = [("", "original", "", *scores, *facts)]
    return headings, lines + [(str(at), *_line(row, result)) for at, row in enumerate(result["rows"], start=1)]


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


def _line(row: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[str, ...]:
    start, shown = STARTS[row["start"], row["trained"]], result["shown"]
    if not row["runs"]:
        return (row["name"], start, *("-" for _ in (*shown, *FACTS[1:])), row["error"] or "not run")
    marks = list(row["marks"])
    if row["state"] != "done":
        marks.append(row["error"] or f"seeds so far: {row['seeds']}")
    if row["runs_on"] != "engine":
        marks.append(row["runs_on"])
    return (
        row["name"],
        start,
        *(_score(name, row, result["original"]["scores"].get(name)) for name in shown),
        _or_nothing(row["bits_per_linear_weight"], ".2f"),
        _or_nothing(row["bits_per_weight"], ".2f"),
        _or_nothing(row["ternary_share"], ".1%"),
        _or_nothing(row["zero_share"], ".0%"),
        _mb(row["file_mb"]),
        f"{row['cpu_seconds'] / 60:.1f}",
        _or_nothing(row["lr"], ".1e"),
        "; ".join(marks),
    )


def _score(name: str, row: Mapping[str, Any], original: float | None) -> str:
    """The mean, ± the spread, and in brackets how it stands to the original's, where that has such a score."""
    value, spread = row["scores"][name], row["spreads"][name]
    cell = score(name, value)
    if spread is not None:
        cell += f" ± {number(spread) if name in NUMBERS else f'{100 * spread:.1f}'}"
    if value is None or original is None:
        return cell
    return f"{cell} ({number(value / original)}x)" if name in NUMBERS else f"{cell} ({100 * (value - original):+.1f})"


def _mb(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
