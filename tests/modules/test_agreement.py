"""Our numbers against transformers', as they are compared before any work; and a config that was misread shows."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import open_clip_model
import tiny
import tiny_clip
from tercet.modules.agreement import disagreement
from tercet.sources import resolve


@pytest.mark.parametrize("family", ["llama", "phi3", "granite", "glm4", "olmo2", "gpt_neox"])
def test_language_models_agree(family: str, tmp_path: Path) -> None:
    found = disagreement(resolve(str(tiny.save_folder(tmp_path / "model", family))))
    assert found is not None
    assert found < 2e-5


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_towers_agree(family: str, tmp_path: Path) -> None:
    found = disagreement(resolve(str(tiny_clip.folder(tmp_path / "model", family))))
    assert found is not None
    assert found < 2e-5


@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_a_misread_config_shows(part: str, tmp_path: Path) -> None:
    source = resolve(str(tiny_clip.folder(tmp_path / "model")))
    misread = {**source.config, part: {**source.config[part], "layer_norm_eps": 0.1}}
    found = disagreement(replace(source, config=misread))  # transformers reads the file, which is as it was
    assert found is not None
    assert found > 1e-2


def test_where_transformers_has_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = resolve(str(open_clip_model.save_folder(tmp_path / "model", *open_clip_model.model())))
    with caplog.at_level(logging.WARNING):
        assert disagreement(source) is None
    assert "transformers has no class for it" in caplog.text
