"""A folder whose config describes less than it holds is refused, not run without the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny
from tercet.errors import ModelError
from tercet.pipeline import Data, quantize
from tercet.runtime import Engine


def test_a_config_with_fewer_layers_than_the_file(tmp_path: Path) -> None:
    source = tiny.save_folder(tmp_path / "source", "llama")
    quantize(str(source), tmp_path / "packed", "w1.58-rounded", Data(examine=False))
    place = tmp_path / "packed" / "config.json"
    config = json.loads(place.read_text())
    config["model"]["num_hidden_layers"] -= 1
    place.write_text(json.dumps(config))
    (tmp_path / "packed" / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match=r"without model\.layers\.1\."):
        Engine.open(tmp_path / "packed")
