"""The comparison as pictures: what the headline costs in time and in size, and how errors fall.

    time.png          the headline against CPU minutes
    size.png          the headline against bits a weight, with the Pareto front, and against the file
    iterations.png    k-means' relative error by iteration and the loss by step: Figure 2 of Crulis et al.

A loss of one kind says nothing beside a loss of another; each curve is to be read by itself. Rows 1000 times worse than
the original would press all others into a line: they are in the table only. So are, of sizes, those that are not
packed. A perplexity's axis is logarithmic; shares are in percent.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.compare.exam import Headline
from tercet.errors import TercetError
from tercet.shown import in_plot
from tercet.train.curves import running_mean

__all__ = ["plots", "refuse_without_matplotlib"]

Numbered = tuple[int, Mapping[str, Any]]  # a row and its number in the table

MARKERS = {"own": "^", "calibrated": "o", "original": "s"}
PALE = 0.45  # what was not trained
SHOWN = 1000  # times worse than the original


def plots(result: Mapping[str, Any], out: Path) -> list[Path]:
    """Draws the three into a folder."""
    headline = Headline(result["headline"]["name"], result["headline"]["less_is_better"])
    original = result["original"]["scores"][headline.name]
    made = [(number, row) for number, row in enumerate(result["rows"], start=1) if row["runs"]]
    values = {number: row["scores"][headline.name] for number, row in made}
    near = [
        (number, row)
        for number, row in made
        if values[number] is not None and headline.times_worse(values[number], original) <= SHOWN
    ]
    sized = [(number, row) for number, row in near if row["bits_per_linear_weight"] is not None]

    def against_time(panels: Sequence[Any]) -> None:
        _scatter(panels[0], near, headline, lambda row: row["cpu_seconds"] / 60)
        panels[0].set_xlabel("CPU minutes")

    def against_size(panels: Sequence[Any]) -> None:
        _scatter(panels[0], sized, headline, lambda row: row["bits_per_linear_weight"])
        _front(panels[0], sized, headline)
        panels[0].set_xlabel("bits a weight of the blocks")
        _scatter(panels[1], sized, headline, lambda row: row["file_mb"])
        panels[1].set_xlabel("file, MB")

    def by_iteration(panels: Sequence[Any]) -> None:
        errors = result["kmeans_relative_error"]
        panels[0].plot(range(len(errors)), errors, marker="o", color="black")
        panels[0].set(xlabel="iteration of k-means", ylabel="relative quantization error", ylim=(0, None))
        _losses(panels[1], made)

    def with_original(draw: Callable[[Sequence[Any]], None]) -> Callable[[Sequence[Any]], None]:
        def drawn(panels: Sequence[Any]) -> None:
            draw(panels)
            for axes in panels:
                axes.axhline(_drawn(original, headline), color="black", linestyle=":", linewidth=1, label="original")
                axes.set_yscale("log" if headline.less else "linear")
            panels[0].set_ylabel(f"{headline.said} ({'log' if headline.less else 'percent'})")

        return drawn

    return [
        _figure(out / "time.png", 1, with_original(against_time)),
        _figure(out / "size.png", 2, with_original(against_size)),
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


def _drawn(value: float, headline: Headline) -> float:
    return value if headline.less else 100 * value


def _scatter(
    axes: Any, rows: Sequence[Numbered], headline: Headline, place: Callable[[Mapping[str, Any]], float]
) -> None:
    """A point a row: a triangle from its own start, a circle from calibration, a square from the original, pale where
    nothing was trained."""
    for number, row in rows:
        x, y = place(row), _drawn(row["scores"][headline.name], headline)
        spread = _drawn(row["spreads"][headline.name] or 0, headline)
        alpha = 1 if row["trained"] else PALE
        look = {"marker": MARKERS[row["start"]], "color": _colour(number), "alpha": alpha, "linestyle": "none"}
        axes.errorbar(x, y, yerr=spread, markersize=8, label=f"{number} {in_plot(row['name'])}", **look)
        _name(axes, number, x, y)


def _front(axes: Any, rows: Sequence[Numbered], headline: Headline) -> None:
    """The Pareto front: the best headline at so many bits or fewer."""
    best: list[tuple[float, float]] = []
    points = [(row["bits_per_linear_weight"], _drawn(row["scores"][headline.name], headline)) for _, row in rows]
    for bits, value in sorted(points, key=lambda point: (point[0], point[1] if headline.less else -point[1])):
        if not best or (value < best[-1][1] if headline.less else value > best[-1][1]):
            best.append((bits, value))
    if best:
        axes.step(*zip(*best, strict=True), where="post", color="black", alpha=0.3, linewidth=1)


def _losses(axes: Any, rows: Sequence[Numbered]) -> None:
    """Running means of the losses of each trained row's first run."""
    axes.set(xlabel="step", ylabel="loss, running mean (log)")
    for number, row in rows:
        steps = [record for record in row["runs"][0]["journal"] if "loss" in record]
        if steps:
            xs, values = [r["step"] for r in steps], running_mean([float(r["loss"]) for r in steps])
            style = "--" if row["start"] == "own" else "-"
            axes.plot(xs, values, style, color=_colour(number), label=f"{number} {in_plot(row['name'])}")
            _name(axes, number, xs[-1], values[-1])
            axes.set_yscale("log")


def _name(axes: Any, number: int, x: float, y: float) -> None:
    axes.annotate(str(number), (x, y), xytext=(5, 3), textcoords="offset points", fontsize=8)


def _colour(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](number % 20)
