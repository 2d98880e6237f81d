"""A packed folder whose linears are rotated and clipped: it runs; it is verified, inspected, refused if malformed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import folders
from tercet import kernels
from tercet.errors import ModelError
from tercet.evaluate.contents import contents
from tercet.evaluate.verify import verify
from tercet.runtime import Engine

TRANSFORMS = {"rotate": True, "clip": 2.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folders.save(tmp_path / "model", model={**folders.MODEL, "tercet": TRANSFORMS})
    return tmp_path / "model"


def test_it_runs_and_is_verified(folder: Path) -> None:
    plain = folder.with_name("plain")
    folders.save(plain)
    ids = [1, 5, 9]
    assert not np.allclose(Engine.open(folder).logits(ids), Engine.open(plain).logits(ids), rtol=0.1)
    found = verify(folder, threads=1)
    assert found.ok
    assert found.transforms == 3 + 7  # of 37 columns nothing can be rotated
    assert found.checks == (found.matrices + 10) * len(kernels.backends())
    assert verify(plain, threads=1).transforms == 0


def test_a_wrong_rotation_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "rotate", lambda x, _block, **_: x)
    found = verify(folder, threads=1)
    assert not found.ok
    assert found.mismatches == 3 * len(kernels.backends())


def test_inspect_names_them(folder: Path) -> None:
    assert contents(folder).as_dict()["transforms"] == TRANSFORMS
    assert contents(folder / "model.safetensors").transforms == TRANSFORMS


def test_a_malformed_one_is_refused(folder: Path) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["model"]["tercet"]["rotate"] = 50
    file.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="rotate is 50; it must be true, false or columns of a block"):
        Engine.open(folder)
