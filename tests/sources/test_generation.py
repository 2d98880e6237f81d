"""generation_config.json: what ends a text, and how it is sampled from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import folders
from tercet.errors import EngineError, FormatError, TercetError
from tercet.runtime import Sampling
from tercet.sources.generation import generation


@pytest.mark.parametrize(
    ("config", "own", "expected"),
    [
        ({}, {}, {"eos_token_id": []}),
        ({"eos_token_id": 2, "bos_token_id": 1}, {}, {"eos_token_id": [2], "bos_token_id": 1}),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4], "temperature": 0.5}, {"eos_token_id": [3, 4]}),
        ({}, {"repetition_penalty": 1.1, "temperature": None}, {"eos_token_id": [], "repetition_penalty": 1.1}),
        (
            {},
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            {"eos_token_id": [], "temperature": 0.6, "top_k": 50, "top_p": 0.9, "min_p": 0.0},
        ),
    ],
)
def test_what_is_kept(config: dict[str, Any], own: dict[str, Any], expected: dict[str, Any]) -> None:
    assert generation(config, own) == expected


@pytest.mark.parametrize(
    "own",
    [
        {"eos_token_id": "</s>"}, {"eos_token_id": {}}, {"eos_token_id": [True]}, {"bos_token_id": 1.5},
        {"do_sample": "yes"}, {"do_sample": True, "temperature": "hot"}, {"do_sample": True, "top_k": 0.5},
        {"do_sample": True, "top_p": 2}, {"do_sample": True, "min_p": []}, {"repetition_penalty": -1},
    ],
)  # fmt: skip
def test_wrong_types_are_refused(own: dict[str, Any]) -> None:
    with pytest.raises(TercetError, match="generation_config"):
        generation({}, own)


def test_a_packed_model_is_sampled_from_as_it_says(tmp_path: Path) -> None:
    said = {"temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.1}
    folders.save(tmp_path / "a", generation={"eos_token_id": 2, **said})
    assert Sampling.of(tmp_path / "a") == Sampling(**said)
    assert Sampling.of(tmp_path / "a", temperature=0.0, top_k=None, seed=3) == Sampling(
        **{**said, "temperature": 0.0, "seed": 3}
    )
    folders.save(tmp_path / "b")
    assert Sampling.of(tmp_path / "b") == Sampling()
    with pytest.raises(EngineError, match="top_p"):
        Sampling.of(tmp_path / "a", top_p=2.0)
    for wrong in ({"temperature": "hot"}, {"top_k": 0.5}, {"top_p": 0}, {"repetition_penalty": True}):
        with pytest.raises(FormatError, match="generation"):
            folders.save(tmp_path / "c", generation=wrong)
