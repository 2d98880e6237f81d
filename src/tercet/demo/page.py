"""One HTML page that shows a comparison: table, plots and sample texts, in a single file without scripts."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from tercet.errors import TercetError
from tercet.evaluate.rows import Row, table
from tercet.shown import in_plot

__all__ = ["page", "plots"]

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
figure { margin: 2rem 0; background: #fff; padding: .5rem }
figure svg { width: 100%; height: auto }
blockquote { margin: .5rem 0 1.5rem; padding-left: 1rem; border-left: 3px solid #8886; white-space: pre-wrap }
"""
MARKERS = "osD^vP*Xh"


def page(
    title: str,
    rows: Sequence[Row],
    protocol: str,
    samples: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, Any],
) -> str:
    """The page.

    Args:
        title: its heading.
        rows: the table, the original first.
        protocol: how the rows were measured.
        samples: by the name of a row: "prompt" and "text", what that model wrote.
        facts: machine and versions, shown as they are.

    Raises TercetError where matplotlib is not installed.
    """
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
        f"<div class='wide'>{_table(rows)}</div><p>{html.escape(protocol)}</p>",
        f"<figure>{plots(rows)}</figure>",
        *(
            f"<h2>{html.escape(name)} writes</h2><blockquote><b>{html.escape(sample['prompt'])}</b>"
            f"{html.escape(sample['text'])}</blockquote>"
            for name, sample in samples.items()
        ),
        "<h2>Measured on</h2><ul>",
        *(f"<li>{html.escape(str(key))}: {html.escape(_plain(value))}</li>" for key, value in facts.items()),
        "</ul></html>\n",
    ]
    return "\n".join(parts)


def _table(rows: Sequence[Row]) -> str:
    headings, lines = table(rows)
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def plots(rows: Sequence[Row]) -> str:
    """An SVG: perplexity, on a logarithmic axis, against file size and against memory.

    Raises TercetError where matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise TercetError("the report draws with matplotlib; pip install 'tercet[report]'") from None
    with matplotlib.rc_context({"svg.hashsalt": "tercet", "svg.fonttype": "none"}):
        figure = Figure(figsize=(12, 5), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        _plot(left, rows, [row.file_mb for row in rows], "file, MB")
        _plot(right, rows, [row.resident_mb for row in rows], "resident memory, MB")
        left.set_ylabel("perplexity (log)")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _plot(axes: Any, rows: Sequence[Row], sizes: Sequence[float | None], label: str) -> None:
    for index, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        if size is not None:
            look = {"marker": MARKERS[index % len(MARKERS)], "label": in_plot(row.name)}
            axes.scatter(size, row.scores["perplexity"], s=90, **look)
    axes.set(yscale="log", xlabel=label, xlim=(0, None))
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
