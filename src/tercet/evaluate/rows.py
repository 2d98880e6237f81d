"""One line of the comparison table, and the table as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

__all__ = ["Row", "markdown", "number", "table"]


@dataclass(frozen=True)
class Row:
    """What was measured of one model; None where it was not.

    Attributes:
        name: such as "ternary, calibrated".
        perplexity, kl, top1_agreement: as in `Quality`.
        file_mb: bytes / 10^6 of everything the model needs, tokenizer included.
        resident_mb: growth of the process's memory by opening and using the model, KV cache not counted.
        prefill_tokens_per_s, decode_tokens_per_s: medians.
        bits_per_weight: 8 * bytes of all tensors / all weights.
        runs_on: "torch" or "engine".
    """

    name: str
    perplexity: float
    kl: float | None
    top1_agreement: float | None
    file_mb: float
    resident_mb: float | None
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    bits_per_weight: float
    runs_on: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


HEADINGS = (
    "model", "perplexity", "KL", "top-1", "bits/weight", "file MB", "resident MB", "prefill tok/s", "decode tok/s",
    "runs on",
)  # fmt: skip


def table(rows: Iterable[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and the cells of each row as text."""
    return HEADINGS, [_cells(row) for row in rows]


def markdown(rows: Iterable[Row]) -> str:
    headings, lines = table(rows)
    rule = ("---", *("--:" for _ in headings[1:-1]), "---")
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *lines)) + "\n"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        number(row.perplexity),
        number(row.kl),
        "-" if row.top1_agreement is None else f"{row.top1_agreement:.1%}",
        f"{row.bits_per_weight:.2f}",
        f"{row.file_mb:.1f}",
        "-" if row.resident_mb is None else f"{row.resident_mb:.1f}",
        number(row.prefill_tokens_per_s),
        number(row.decode_tokens_per_s),
        row.runs_on,
    )


def number(value: float | None) -> str:
    """A cell: three digits after the point below 10, one below 1000, then thousands: ppl 32.3, 213.7, 1,234,567."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}" if abs(value) < 1e9 else f"{value:.1e}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
