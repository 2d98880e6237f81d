"""How far long work is: bars and tables in a terminal, a plain line now and then elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tercet.shown import printable

__all__ = ["live_table", "progress_bar", "watch"]

EVERY = 30.0  # seconds between two lines of one piece of work
FIRST = 3.0  # the first comes sooner; what takes less says nothing


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A callback (what, done, total): bars with the time left, or lines where stderr is no terminal.

    Nothing is shown before its first call.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, TimeRemainingColumn(), console=console)
    tasks: dict[str, Any] = {}

    def update(what: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()
        if what not in tasks:
            tasks[what] = bars.add_task(printable(what), total=total)
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield update
    finally:
        if tasks:
            bars.stop()


class _Lines:
    """Lines such as "calibrate blocks: 3/30, 0:01:10, 0:10:30 left", no more often than FIRST and EVERY say.

    Work that says it begins (done is 0) is announced; of other work, what ends at once is never mentioned.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began: dict[str, tuple[float, int]] = {}
        self._due: dict[str, float] = {}
        self._mentioned: set[str] = set()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        announced = what not in self._began and done == 0
        since, before = self._began.setdefault(what, (now, done))
        ended = done == total and what in self._mentioned
        if not announced and not ended and now < self._due.setdefault(what, now + FIRST):
            return
        self._due[what] = now + EVERY
        self._mentioned.add(what)
        line = f"{printable(what)}: {done}/{total}"
        if not announced:
            line += f", {_time(now - since)}"
        if before < done < total:
            line += f", {_time((now - since) / (done - before) * (total - done))} left"
        _print(self._console, line)


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


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
        due = 0.0

        def tell(record: Mapping[str, Any]) -> None:
            nonlocal due
            seen.update(record)
            now = time.monotonic()
            if now >= due or "evaluation" in record or record["step"] == steps:
                due = now + EVERY
                _print(console, ", ".join(f"{name} {value}" for name, value in _rows(seen, steps)))

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
