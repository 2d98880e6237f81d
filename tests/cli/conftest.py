"""One tiny float model, its text and its packed folder for all tests of the command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import tiny
from tercet.pipeline import Data, quantize

TEXT = (tiny.TEXT + "A window is a run of tokens; its first one is unscored.\n") * 60
ROUNDED = "w1.58-rounded"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of the test's own, also for the processes it starts."""
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path.with_name(tmp_path.name + "-cache")))


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_folder(tmp_path_factory.mktemp("source") / "tiny-llama")


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "tiny"
    quantize(str(source), folder, ROUNDED, Data(examine=False))
    return folder


@pytest.fixture
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
