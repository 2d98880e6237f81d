"""The comparison as pictures: what perplexity costs in time and in size, and how errors fall.

    perplexity-time.png     perplexity against CPU minutes
    perplexity-size.png     perplexity against bits a weight, with the Pareto front, and against the file
    iterations.png          k-means' relative error by iteration and the loss by step: Figure 2 of Crulis et al.

A loss of one kind says nothing beside a loss of another; each curve is to be read by itself. Rows beyond 1000 times the
original's perplexity would press all others into a line: they are in the table only.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.errors import TercetError
from tercet.shown import in_plot
from tercet.train.curves import running_mean

__all__ = ["plots", "refuse_without_matplotlib"]

Numbered = tuple[int, Mapping[str, Any]]  # a row and its number in the table

MARKERS = {"own": "^", "calibrated": "o"}
PALE = 0.45  # what was not trained
SHOWN = 1000  # times the original's perplexity


def plots(result: Mapping[str, Any], out: Path) -> list[Path]:
    """Draws the three into a folder."""
    original = result["original"]["perplexity"]
    made = [(number, row) for number, row in enumerate(result["rows"], start=1) if row["runs"]]
    near = [each for each in made if each[1]["perplexity"] is not None and each[1]["perplexity"] <= SHOWN * original]

    def against_time(panels: Sequence[Any]) -> None:
        _scatter(panels[0], near, lambda row: row["cpu_seconds"] / 60, "CPU minutes")

    def against_size(panels: Sequence[Any]) -> None:
        _scatter(panels[0], near, lambda row: row["bits_per_linear_weight"], "bits a weight of the blocks")
        _front(panels[0], near)
        _scatter(panels[1], near, lambda row: row["file_mb"], "file, MB")

    def by_iteration(panels: Sequence[Any]) -> None:
        errors = result["kmeans_relative_error"]
        panels[0].plot(range(len(errors)), errors, marker="o", color="black")
        panels[0].set(xlabel="iteration of k-means", ylabel="relative quantization error", ylim=(0, None))
        _losses(panels[1], made)

    def with_original(draw: Callable[[Sequence[Any]], None]) -> Callable[[Sequence[Any]], None]:
        def drawn(panels: Sequence[Any]) -> None:
            draw(panels)
            for axes in panels:
                axes.axhline(original, color="black", linestyle=":", linewidth=1, label="original")
            panels[0].set_ylabel("perplexity (log)")

        return drawn

    return [
        _figure(out / "perplexity-time.png", 1, with_original(against_time)),
        _figure(out / "perplexity-size.png", 2, with_original(against_size)),
        _figure(out / "iterations.png", 2, by_iteration, sharey=False),
    ]


def refuse_without_matplotlib() -> None:
    """Before hours of work. Raises TercetError."""
    if find_spec("matplotlib") is None:
        raise TercetError("plots are drawn with matplotlib; pip install 'tercet[report]'")


def _figure(path: Path, count: int, draw: Callable[[Sequence[Any]], None], sharey: bool = True) -> Path:
    """A PNG with so many panels, the names of the last one's curves beside them."""
    from matplotlib.figure import Figure

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


def _scatter(axes: Any, rows: Sequence[Numbered], place: Callable[[Mapping[str, Any]], float], label: str) -> None:
    """A point a row: a triangle from its own start, a circle from calibration, pale where nothing was trained."""
    for number, row in rows:
        x, y = place(row), row["perplexity"]
        alpha = 1 if row["trained"] else PALE
        look = {"marker": MARKERS[row["start"]], "color": _colour(number), "alpha": alpha, "linestyle": "none"}
        axes.errorbar(x, y, yerr=row["spread"] or 0, markersize=8, label=f"{number} {in_plot(row['name'])}", **look)
        _name(axes, number, x, y)
    axes.set(yscale="log", xlabel=label)


def _front(axes: Any, rows: Sequence[Numbered]) -> None:
    """The Pareto front: the least perplexity at so many bits or fewer."""
    best: list[tuple[float, float]] = []
    for bits, perplexity in sorted((row["bits_per_linear_weight"], row["perplexity"]) for _, row in rows):
        if not best or perplexity < best[-1][1]:
            best.append((bits, perplexity))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="black", alpha=0.3, linewidth=1)


def _losses(axes: Any, rows: Sequence[Numbered]) -> None:
    """Running means of the losses of each trained row's first run."""
    axes.set(xlabel="step", ylabel="loss, running mean (log)")
    for number, row in rows:
        steps = [record for record in row["runs"][0]["journal"] if "loss" in record]
        if steps:
            xs, values = [r["step"] for r in steps], running_mean([float(r["loss"]) for r in steps])
            style = "-" if row["start"] == "calibrated" else "--"
            axes.plot(xs, values, style, color=_colour(number), label=f"{number} {in_plot(row['name'])}")
            _name(axes, number, xs[-1], values[-1])
            axes.set_yscale("log")


def _name(axes: Any, number: int, x: float, y: float) -> None:
    axes.annotate(str(number), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)


def _colour(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](number % 20)
