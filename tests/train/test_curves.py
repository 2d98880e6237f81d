"""Curves of a journal as PNGs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tercet.errors import FormatError, TercetError
from tercet.train import curves


def journal(folder: Path, evaluated: bool) -> Path:
    records: list[dict[str, object]] = [{"step": 0, "evaluation": {"perplexity": 900.0}}] if evaluated else []
    for step in range(1, 60):
        records.append({"step": step, "tokens": 4096 * step, "loss": 3 / step, "cpu_seconds": 20.0 * step})
        if evaluated and step % 20 == 0:
            records[-1]["evaluation"] = {"perplexity": 30 + 900 / step}
    folder.mkdir(exist_ok=True)
    (folder / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 60, "l')
    return folder


@pytest.mark.parametrize("evaluated", [True, False])
def test_pngs(tmp_path: Path, evaluated: bool) -> None:
    made = curves(journal(tmp_path / "run", evaluated), tmp_path / "out")
    assert [path.name for path in made] == ["loss.png", "perplexity.png"][: 1 + evaluated]
    for path in made:
        assert path.read_bytes().startswith(b"\x89PNG")
    before = [path.read_bytes() for path in made]
    assert [path.read_bytes() for path in curves(tmp_path / "run", tmp_path / "out")] == before


def test_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FormatError, match="no journal"):
        curves(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TercetError, match=r"pip install 'tercet\[report\]'"):
        curves(journal(tmp_path / "run", True))
