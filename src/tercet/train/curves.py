"""Curves of a run as PNGs: its loss, and the perplexity of its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.errors import TercetError
from tercet.train.journal import read_journal

__all__ = ["curves", "running_mean"]

SMOOTH = 0.9  # share of the past in the running mean


def curves(folder: str | Path, out: str | Path | None = None) -> list[Path]:
    """Draws loss.png and, where evaluations give a "perplexity", perplexity.png.

    Args:
        folder: of the run. out: where the files go; the same folder if None.

    Raises TercetError where matplotlib is missing, or the run has no journal.
    """
    records = read_journal(Path(folder) / "journal.jsonl")
    steps = [record for record in records if "loss" in record]
    measured = [record for record in records if "perplexity" in record.get("evaluation", {})]
    target = Path(out or folder)
    made = []
    if steps:
        made.append(_draw(target / "loss.png", steps, "loss", lambda axes, xs: _losses(axes, xs, steps)))
    if measured:
        values = [record["evaluation"]["perplexity"] for record in measured]
        name = "perplexity (log)"
        made.append(_draw(target / "perplexity.png", measured, name, lambda axes, xs: _points(axes, xs, values)))
    return made


def _draw(
    path: Path, records: Sequence[Mapping[str, Any]], label: str, plot: Callable[[Any, list[float]], None]
) -> Path:
    """One PNG with two panels: the same against tokens and against CPU time."""
    try:
        from io import BytesIO

        from matplotlib.figure import Figure
    except ImportError:
        raise TercetError("curves are drawn with matplotlib; pip install 'tercet[report]'") from None
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    against = {
        "million tokens": [record.get("tokens", 0) / 1e6 for record in records],
        "CPU minutes": [record.get("cpu_seconds", 0) / 60 for record in records],
    }
    panels: Any = figure.subplots(1, 2, sharey=True)
    for axes, (name, xs) in zip(panels, against.items(), strict=True):
        plot(axes, xs)
        axes.set(xlabel=name)
        axes.grid(True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(label)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    fsio.atomic_file(path, buffer.getvalue())
    return path


def _losses(axes: Any, xs: Sequence[float], records: Sequence[Mapping[str, Any]]) -> None:
    """Each step pale, the running mean strong."""
    values = [float(record["loss"]) for record in records]
    axes.plot(xs, values, color="C0", alpha=0.25, linewidth=0.8)
    axes.plot(xs, running_mean(values), color="C0")


def running_mean(values: Sequence[float]) -> list[float]:
    """After each value: the plain mean of the first ten, then one in which the newest counts a tenth."""
    smooth: list[float] = []
    for count, value in enumerate(values):
        share = min(SMOOTH, count / (count + 1))
        smooth.append(share * (smooth[-1] if smooth else value) + (1 - share) * value)
    return smooth


def _points(axes: Any, xs: Sequence[float], values: Sequence[float]) -> None:
    axes.plot(xs, values, color="C1", marker="o", markersize=4)
    axes.set_yscale("log")
