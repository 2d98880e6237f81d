"""The comparison as pictures: what perplexity costs in time and in size, and how errors fall.

    perplexity-time.png     perplexity against CPU minutes
    perplexity-size.png     perplexity against bits a weight, and against the file
    iterations.png          k-means' relative error by iteration and the loss by step: Figure 2 of Crulis et al.

A loss of one kind says nothing beside a loss of another; each curve is to be read by itself.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.errors import TercetError
from tercet.train.curves import running_mean

__all__ = ["plots"]

MARKERS = {"own": "^", "calibrated": "o"}
PALE = 0.45  # what was not trained


def plots(result: Mapping[str, Any], out: Path) -> list[Path]:
    """Draws the three into a folder. Raises TercetError where matplotlib is missing."""
    rows = [row for row in result["rows"] if row["runs"] and row["perplexity"] is not None]
    original = result["original"]

    def against_time(panels: Sequence[Any]) -> None:
        _scatter(panels[0], rows, [row["cpu_seconds"] / 60 for row in rows], "CPU minutes (log)")
        panels[0].set_xscale("log")

    def against_size(panels: Sequence[Any]) -> None:
        _scatter(panels[0], rows, [row["bits_per_ternary_weight"] for row in rows], "bits a quantized weight")
        _scatter(panels[1], rows, [row["file_mb"] for row in rows], "file, MB")

    def by_iteration(panels: Sequence[Any]) -> None:
        errors = result["kmeans_relative_error"]
        panels[0].plot(range(len(errors)), errors, marker="o", color="black")
        panels[0].set(xlabel="iteration of k-means", ylabel="relative quantization error", ylim=(0, None))
        _losses(panels[1], rows)

    def with_original(draw: Callable[[Sequence[Any]], None]) -> Callable[[Sequence[Any]], None]:
        def drawn(panels: Sequence[Any]) -> None:
            draw(panels)
            for axes in panels:
                axes.axhline(original["perplexity"], color="black", linestyle=":", linewidth=1, label="original")
            panels[0].set_ylabel("perplexity (log)")

        return drawn

    return [
        _figure(out / "perplexity-time.png", 1, with_original(against_time)),
        _figure(out / "perplexity-size.png", 2, with_original(against_size)),
        _figure(out / "iterations.png", 2, by_iteration, sharey=False),
    ]


def _figure(path: Path, count: int, draw: Callable[[Sequence[Any]], None], sharey: bool = True) -> Path:
    """A PNG with so many panels, the names of the last one's curves beside them."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise TercetError("plots are drawn with matplotlib; pip install 'tercet[report]'") from None
    figure = Figure(figsize=(5 + 5 * count, 7), layout="constrained")
    panels: Any = figure.subplots(1, count, sharey=sharey, squeeze=False)[0]
    draw(panels)
    for axes in panels:
        axes.grid(True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[-1].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    fsio.atomic_file(path, buffer.getvalue())
    return path


def _scatter(axes: Any, rows: Sequence[Mapping[str, Any]], xs: Sequence[float | None], label: str) -> None:
    """A point a row: a triangle from its own start, a circle from calibration, pale where nothing was trained."""
    for index, (row, x) in enumerate(zip(rows, xs, strict=True)):
        if x is None:
            continue
        look = {"marker": MARKERS[row["start"]], "color": _colour(index), "alpha": 1 if row["trained"] else PALE}
        axes.errorbar(x, row["perplexity"], yerr=row["spread"] or 0, markersize=8, label=row["name"], **look)
    axes.set(yscale="log", xlabel=label)


def _losses(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Running means of the losses of each trained row's first run."""
    axes.set(xlabel="step", ylabel="loss, running mean (log)")
    for index, row in enumerate(rows):
        steps = [record for record in row["runs"][0]["journal"] if "loss" in record]
        if steps:
            values = running_mean([float(record["loss"]) for record in steps])
            style = "-" if row["start"] == "calibrated" else "--"
            axes.plot([record["step"] for record in steps], values, style, color=_colour(index), label=row["name"])
            axes.set_yscale("log")


def _colour(index: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](index % 20)
