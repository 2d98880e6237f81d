"""A dry run says what will come: the folder's size to the byte, but for its small files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import tiny
from command import result_of, tercet
from tercet import sources
from tercet.pipeline.card import title
from tercet.pipeline.forecast import forecast
from tercet.pipeline.making import making
from tercet.recipe import Recipe

ROUNDED = "w1.58-rounded"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_folder(tmp_path_factory.mktemp("source") / "tiny-llama")


def test_a_dry_run_says_the_size_of_the_folder_and_writes_nothing(source: Path, tmp_path: Path) -> None:
    found = result_of("quantize", source, "--dry-run", "--recipe", ROUNDED)
    made = result_of("quantize", source, "-o", tmp_path / "out", "--recipe", ROUNDED, "--eval-tokens", 0)
    assert found["plan"] == made["plan"]
    files = ("model.safetensors", "tokenizer.json", "tokenizer_config.json")
    size = sum((tmp_path / "out" / name).stat().st_size for name in files)
    header = int.from_bytes((tmp_path / "out" / files[0]).read_bytes()[:8], "little")
    assert abs(size - header - found["folder_mb"] * 1e6) < 64 * len(sources.resolve(str(source)).model.weights) + 4096
    assert found["family"] == "llama"
    assert found["weights"] == sum(
        math.prod(weight.shape) for weight in sources.resolve(str(source)).model.weights.values()
    )
    refused = tercet("quantize", source, "--recipe", ROUNDED)
    assert refused.exit_code == 2


def test_a_model_that_is_not_supported_is_refused_by_a_dry_run(tmp_path: Path) -> None:
    other = tiny.save_folder(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    refused = tercet("quantize", other, "--dry-run")
    assert refused.exit_code == 1
    assert "mamba" in refused.stderr or "model_type" in refused.stderr


def test_more_work_takes_more(source: Path) -> None:
    origin = sources.resolve(str(source))
    rounded, calibrated = (
        forecast(making(origin, Recipe.load(name).model_copy(update={"rotate": False})), compared=False, threads=1)
        for name in (ROUNDED, "w1.58")
    )
    assert rounded.minutes < calibrated.minutes
    assert rounded.memory_mb < calibrated.memory_mb
    assert rounded.folder_mb == calibrated.folder_mb


def test_the_card_is_called_as_the_model_is_and_says_its_licence(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: apache-2.0\nbase_model: some/base\n---\n# Prose\n")
    assert title(sources.resolve(str(source))) == "tiny-llama"
    result_of("quantize", f"{source}/../{source.name}", "-o", tmp_path / "out", "--recipe", ROUNDED, "--eval-tokens", 0)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("# tiny-llama, quantized by Tercet\n")
    assert "Base model: some/base. Licence: apache-2.0." in card
    for prose in ("---\nlicense: [", "---\n" + "[" * 9000 + "\n---\n", "no front matter"):
        (source / "README.md").write_text(prose)
        result_of("quantize", source, "-o", tmp_path / "out", "--recipe", ROUNDED, "--eval-tokens", 0)
        assert "Licence" not in (tmp_path / "out" / "README.md").read_text()
    (source / "README.md").unlink()
