"""A training run as it goes: a table in a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

__all__ = ["live_table", "watch"]


@contextmanager
def watch() -> Iterator[Callable[[Mapping[str, Any], int], None]]:
    """A callback for records and the number of steps; the table opens with the first record."""
    with ExitStack() as stack:
        tables: list[Callable[[Mapping[str, Any]], None]] = []

        def tell(record: Mapping[str, Any], steps: int) -> None:
            if not tables:
                tables.append(stack.enter_context(live_table(steps)))
            tables[0](record)

        yield tell


@contextmanager
def live_table(steps: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A callback for `tercet.train.train`'s records.

    Args:
        steps: of the whole run.
    """
    console = Console(stderr=True)
    seen: dict[str, Any] = {}
    if not console.is_terminal:

        def tell(record: Mapping[str, Any]) -> None:
            seen.update(record)
            if "zeros" in record or "evaluation" in record:
                console.print(", ".join(f"{name} {value}" for name, value in _rows(seen, steps)), soft_wrap=True)

        yield tell
        return
    with Live(console=console, refresh_per_second=2) as live:

        def show(record: Mapping[str, Any]) -> None:
            seen.update(record)
            table = Table(show_header=False)
            table.add_column(justify="left")
            table.add_column(justify="right")
            for row in _rows(seen, steps):
                table.add_row(*row)
            live.update(table)

        yield show


def _rows(record: Mapping[str, Any], steps: int) -> list[tuple[str, str]]:
    """Names and values of the last record, and of earlier ones where it has none."""
    step, seconds = record["step"], record["seconds"]
    rows = [("step", f"{step}/{steps}")]
    if step:
        rows.append(("loss", f"{record['loss']:.4f}"))
        rows += [(name, f"{value:.4f}") for name, value in record["parts"].items()]
        rows += [(f"rate of {name}", f"{rate:.2e}") for name, rate in record["rates"].items()]
        rows.append(("gradient", f"{record['gradient']:.3f}"))
    if "zeros" in record:
        rows += [("zeros", f"{record['zeros']:.1%}"), ("codes changed", f"{record['flips']:.2%}")]
    rows += [(name, "-" if v is None else f"{v:.4g}") for name, v in record.get("evaluation", {}).items()]
    if step:
        rows.append(("tokens", f"{record['tokens']:,} in {_time(seconds)}"))
        rows.append(("left", _time(seconds / step * (steps - step))))
    return rows


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
