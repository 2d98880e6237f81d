"""Results on sets of pictures as a table and as a bar plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tercet import fsio
from tercet.errors import StorageError, TercetError
from tercet.shown import in_plot

__all__ = ["bars", "check_bars", "table"]

SHOWN = {
    "classification": ("top1", "top5", "mean_per_class", "linear_probe", "mean_average_precision"),
    "retrieval": ("recall", *(f"{way}_r{place}" for way in ("text_to_image", "image_to_text") for place in (1, 5, 10))),
}
WORDS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "linear_probe": "linear probe",
    "mean_average_precision": "mean AP",
    "text_to_image": "text to image R@1",
    "image_to_text": "image to text R@1",
    "recall": "mean R@1",
}


def table(datasets: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings and rows: a row for each metric of each set, the set's own metric marked."""
    names = list(datasets[0]["models"])
    headings = ("dataset", "metric", "queries", *names, *(("difference (95 %)",) if len(names) > 1 else ()))
    rows = []
    for dataset in datasets:
        first = True
        for metric in SHOWN[dataset["task"]]:
            if metric not in dataset["models"][names[0]]:
                continue
            cells = [f"{dataset['models'][name][metric]:.1%}" for name in names]
            difference = (dataset["difference"] or {}).get(metric)
            if len(names) > 1:
                cells.append("" if difference is None else _interval(difference))
            mark = " *" if metric == dataset["metric"] else ""
            queries = dataset["queries"].get(metric)
            shown = "" if queries is None else f"{queries:,}"
            rows.append((dataset["name"] if first else "", _words(metric) + mark, shown, *cells))
            first = False
    return headings, rows


def check_bars(place: Path) -> None:
    """Raises TercetError where bars could not be drawn or written: no matplotlib, no folder that may be written to."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise TercetError("plots are drawn with matplotlib; pip install 'tercet[report]'") from None
    if place.suffix != ".png":
        raise StorageError(f"cannot write {place}: bars are drawn as PNG; give a name that ends in .png")
    fsio.check_file(place)


def bars(datasets: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG: each set's own metric, a bar for each model. Needs matplotlib (`check_bars`)."""
    from matplotlib.figure import Figure

    names = list(datasets[0]["models"])
    width = 0.8 / len(names)
    figure = Figure(figsize=(max(5.0, 1.6 + 0.9 * len(datasets)), 4.6), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(names):
        heights = [100 * dataset["models"][name][dataset["metric"]] for dataset in datasets]
        places = [index + (number - (len(names) - 1) / 2) * width for index in range(len(datasets))]
        drawn = axes.bar(places, heights, width * 0.95, label=in_plot(name))
        if len(datasets) <= 12:
            axes.bar_label(drawn, fmt="%.1f", fontsize=8, padding=2)
    labels = [f"{in_plot(dataset['name'])}\n{WORDS.get(dataset['metric'], dataset['metric'])}" for dataset in datasets]
    axes.set_xticks(range(len(datasets)), labels, rotation=0 if len(datasets) <= 4 else 60, fontsize=8)
    axes.set(ylabel="%", ylim=(0, 108))
    axes.set_yticks(range(0, 101, 20))
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _words(metric: str) -> str:
    way, _, place = metric.rpartition("_r")
    return f"{way.replace('_', ' ')} R@{place}" if way in ("text_to_image", "image_to_text") else WORDS[metric]


def _interval(value: Mapping[str, float]) -> str:
    return f"{100 * value['value']:+.1f} ({100 * value['low']:+.1f} to {100 * value['high']:+.1f})"
