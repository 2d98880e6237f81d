"""One line of a comparison table, whatever the medium, and the table as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tercet.shown import in_markdown

__all__ = ["NUMBERS", "Row", "markdown", "number", "score", "table", "words"]


@dataclass(frozen=True)
class Row:
    """What was measured of one model; None where it was not.

    Attributes:
        name: such as "ternary, calibrated".
        runs_on: "torch" or "engine".
        file_mb: bytes / 10^6 of everything the model needs, tokenizer included.
        bits_per_weight: 8 * bytes of all tensors / all weights.
        scores: by name. Of a language model "perplexity", "kl", "top1_agreement" (`Quality`), and of a text of several
            kinds "mean_of_kinds" and "worst_kind" (`tercet.evaluate.kinds`); of an image-text model "<data set>
            <metric>", shares of 1.
        ternary_share, zero_share: ternary weights of all weights; zeros of the ternary ones.
        resident_mb: growth of the process's memory by opening and using the model, KV cache not counted.
        prefill_tokens_per_s, decode_tokens_per_s: medians.
    """

    name: str
    runs_on: str
    file_mb: float
    bits_per_weight: float
    scores: Mapping[str, float]
    ternary_share: float | None = None
    zero_share: float | None = None
    resident_mb: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


HEADINGS = {
    "kl": "KL",
    "top1_agreement": "top-1",
    "top1": "top-1",
    "top5": "top-5",
    "mean_per_class": "mean per class",
    "linear_probe": "linear probe",
    "mean_average_precision": "mean AP",
    "recall": "mean R@1",
    "mean_of_kinds": "mean of kinds",
    "worst_kind": "worst kind",
}
NUMBERS = ("perplexity", "kl")
TIMES = ("mean_of_kinds", "worst_kind")  # the original's perplexity; all other scores are shares
FACTS = (
    ("ternary_share", "ternary"),
    ("zero_share", "zeros"),
    ("bits_per_weight", "bits/weight"),
    ("file_mb", "file MB"),
    ("resident_mb", "resident MB"),
    ("prefill_tokens_per_s", "prefill tok/s"),
    ("decode_tokens_per_s", "decode tok/s"),
)


def table(rows: Iterable[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the cells of each row as text; only what some row has."""
    lines = list(rows)
    scores = list(dict.fromkeys(name for row in lines for name in row.scores))
    facts = [(key, heading) for key, heading in FACTS if any(getattr(row, key) is not None for row in lines)]
    headings = ("model", *(words(name) for name in scores), *(heading for _, heading in facts), "runs on")
    return headings, [_cells(row, scores, [key for key, _ in facts]) for row in lines]


def markdown(rows: Iterable[Row]) -> str:
    headings, lines = table(rows)
    rule = ("---", *("--:" for _ in headings[1:-1]), "---")
    return "\n".join("| " + " | ".join(map(in_markdown, cells)) + " |" for cells in (headings, rule, *lines)) + "\n"


def words(name: str) -> str:
    """A score's name as people say it: "emoji text_to_image_r1" is "emoji text to image R@1"."""
    source, _, metric = name.rpartition(" ")
    way, found, place = metric.rpartition("_r")
    said = HEADINGS.get(metric, f"{way.replace('_', ' ')} R@{place}" if found and place.isdigit() else metric)
    return f"{source} {said}" if source else said


def score(name: str, value: float | None) -> str:
    """A cell: a share in percent, a ratio as so many times, any other score as a number."""
    if value is not None and name in TIMES:
        return f"{value:.2f}x" if value < 100 else f"{number(value)}x"
    if value is None or name in NUMBERS:
        return number(value)
    return f"{value:.1%}"


def number(value: float | None) -> str:
    """A cell: three digits after the point below 10, one below 1000, then thousands: ppl 32.3, 213.7, 1,234,567."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.1e}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def _cells(row: Row, scores: Sequence[str], facts: Sequence[str]) -> tuple[str, ...]:
    measured = [score(name, row.scores.get(name)) for name in scores]
    return (row.name, *measured, *(_fact(key, getattr(row, key)) for key in facts), row.runs_on)


def _fact(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    if key.endswith("share"):
        return f"{value:.1%}"
    if key == "bits_per_weight":
        return f"{value:.2f}"
    if key == "file_mb":
        return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    return f"{value:.1f}" if key == "resident_mb" else number(value)
