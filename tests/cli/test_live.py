"""The live view of a training run: its last numbers, on stderr only."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tercet.cli import live

START = {"step": 0, "evaluation": {"perplexity": 812.5}, "seconds": 0.4, "cpu_seconds": 0.4}
FIRST = {
    "step": 1,
    "epoch": 0.2,
    "tokens": 4096,
    "loss": 2.5,
    "parts": {"kl": 2.0, "ce": 0.5},
    "rates": {"weights": 1e-4, "scales": 1e-5},
    "gradient": 1.25,
    "seconds": 10.0,
    "cpu_seconds": 19.0,
}
COUNTED = {**FIRST, "step": 2, "tokens": 8192, "loss": 2.25, "zeros": 0.375, "flips": 0.01, "seconds": 20.0}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_lines_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with live.live_table(8) as tell:
        for record in (START, FIRST, COUNTED):
            tell(record)
            clock[0] += live.EVERY / 2
        tell({**COUNTED, "step": 3})
        tell({**COUNTED, "step": 8})
    out, err = capfd.readouterr()
    assert out == ""
    first, second, last = err.splitlines()
    assert first == "step 0/8, perplexity 812.5"
    for part in (
        "step 2/8",
        "loss 2.2500",
        "kl 2.0000",
        "zeros 37.5%",
        "perplexity 812.5",
        "8,192 in 0:00:20",
        "left 0:01:00",
    ):
        assert part in second
    assert last.startswith("step 8/8")


def test_nothing_is_shown_before_the_first_record(capfd: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with live.watch() as tell:
        assert capfd.readouterr().err == ""
        tell(START, 8)
        clock[0] += live.EVERY
        tell(COUNTED, 8)
    assert [line.split(",")[0] for line in capfd.readouterr().err.splitlines()] == ["step 0/8", "step 2/8"]


def test_progress_in_lines_now_and_then(capfd: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with live.progress_bar() as progress:
        for done in range(101):
            progress("calibrate blocks", done, 100)
            progress("[red]quick\x1b[0m", done + 1, 101)
            clock[0] += 1 if done else live.FIRST
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("calibrate")]
    assert lines[0] == "calibrate blocks: 0/100"
    assert lines[1] == "calibrate blocks: 28/100, 0:00:30, 0:01:17 left"
    assert lines[-1] == "calibrate blocks: 100/100, 0:01:42"
    assert len(lines) == 5
    assert "[red]quick?[0m: 2/101, 0:00:03, 0:04:57 left" in err


def test_what_ends_at_once_is_not_mentioned(capfd: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with live.progress_bar() as progress:
        for done in range(1, 1001):
            progress("pack", done, 1000)
            clock[0] += live.FIRST / 1000
    assert capfd.readouterr() == ("", "")


def test_a_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(live, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with live.live_table(8) as show:
        for record in (START, FIRST, COUNTED):
            show(record)
    last = screen.getvalue()
    for part in ("step", "2/8", "2.2500", "rate of scales", "1.00e-05", "codes changed", "1.00%"):
        assert part in last
