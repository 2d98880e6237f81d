import numpy as np
import pytest

from tercet.evaluate import speed
from tercet.evaluate.speed import speeds


class Clocked:
    """A model whose steps take a known time on a clock of its own."""

    def __init__(self, clock: list[float], log: list[str], name: str, token: float) -> None:
        self.clock, self.log, self.name, self.token = clock, log, name, token

    def start(self) -> None:
        self.log.append(self.name)

    def step(self, ids: np.ndarray) -> np.ndarray:
        self.clock[0] += len(ids) * self.token
        return np.eye(1, 8, 3)[0]


def test_rates_are_tokens_over_seconds_and_rounds_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, log = [0.0], []
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    models = {"slow": Clocked(clock, log, "slow", 0.5), "fast": Clocked(clock, log, "fast", 0.001)}
    got = speeds(models, prefill=20, decode=5, rounds=3)
    assert got["slow"].prefill_tokens_per_s == pytest.approx(2)
    assert got["slow"].decode_tokens_per_s == pytest.approx(2)
    assert got["fast"].decode_tokens_per_s == pytest.approx(1000)
    assert got["fast"].prefill_quartiles == pytest.approx((1000, 1000))
    assert log == ["slow", "fast"] * 4
