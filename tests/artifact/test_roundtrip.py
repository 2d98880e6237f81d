"""What is saved is what opens, and what other readers see; where bytes lie in the file."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from safetensors import safe_open

import folders
from tercet import artifact
from tercet.artifact import Artifact
from tercet.errors import FormatError
from tercet.packing import PackedTensor


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folders.save(tmp_path / "model")
    return tmp_path / "model"


def test_every_tensor_comes_back(folder: Path) -> None:
    opened, expected = Artifact.open(folder, check=True).tensors, folders.tensors()
    assert opened.keys() == expected.keys()
    for name, tensor in expected.items():
        back = opened[name]
        if not isinstance(tensor, PackedTensor):
            assert isinstance(back, np.ndarray)
            assert back.tobytes() == tensor.tobytes()
            continue
        assert isinstance(back, PackedTensor)
        assert (back.format, back.shape, back.group_size) == (tensor.format, tensor.shape, tensor.group_size)
        for part in ("codes", "scale", "shift"):
            one, other = getattr(back, part), getattr(tensor, part)
            assert (one is None) == (other is None)
            assert one is None or (one.dtype == other.dtype and np.array_equal(one, other))
            assert one is None or not one.flags.writeable


def test_config_and_files(folder: Path) -> None:
    config = Artifact.open(folder).config
    assert config["model"] == folders.MODEL
    assert config["generation"] == {"eos_token_id": [2]}
    assert config["source"] == {"name": "tiny"}
    assert config["tensors"]["model.layers.0.mlp.down_proj.weight"] == {
        "format": "t2", "shape": [64, 37], "group_size": 37, "shift": True,
    }  # fmt: skip
    names = {"model.safetensors", "config.json", "tokenizer.json", "recipe.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == names
    assert json.loads((folder / "recipe.json").read_text()) == {"name": "test"}
    assert Artifact.open(folder).file_bytes == (folder / "model.safetensors").stat().st_size


def test_card_carries_the_hash(folder: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
    folders.save(tmp_path / "other", card=lambda facts: f"{facts['sha256']} {facts['file_bytes']}")
    size = (folder / "model.safetensors").stat().st_size
    assert (tmp_path / "other/README.md").read_text() == f"{digest} {size}"


def test_safetensors_reads_it(folder: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    expected = folders.tensors()[name]
    assert isinstance(expected, PackedTensor)
    with safe_open(folder / "model.safetensors", "numpy") as file:
        assert np.array_equal(file.get_tensor(name), expected.codes)
        assert np.array_equal(file.get_tensor(name + "_scale"), expected.scale)
        assert set(file.keys()) == artifact.read_header(folder / "model.safetensors").keys()


def test_data_is_aligned(folder: Path) -> None:
    entries = artifact.read_header(folder / "model.safetensors")
    assert next(iter(entries.values())).start % 64 == 0
    for name in Artifact.open(folder).config["tensors"]:
        size = entries[name].end - entries[name].start
        assert entries[name].start % min(64, size & -size) == 0
        if entries[name].dtype == "U8" and not name.endswith("v_proj.weight"):  # t5 has odd sizes
            assert entries[name].start % 64 == 0
            assert entries[name + "_scale"].start % 32 == 0


def test_checksums_are_castagnoli(folder: Path) -> None:
    config, raw = Artifact.open(folder).config, (folder / "model.safetensors").read_bytes()
    for name, entry in artifact.read_header(folder / "model.safetensors").items():
        assert config["crc32c"][name] == google_crc32c.value(raw[entry.start : entry.end])


def test_plain_matrices_become_f32(tmp_path: Path) -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    folders.save(tmp_path / "model", tensors={"a.weight": matrix})
    back = Artifact.open(tmp_path / "model").tensors["a.weight"]
    assert isinstance(back, PackedTensor)
    assert back.format == "f32"
    assert np.array_equal(back.codes, matrix)


def test_save_refuses_what_cannot_be_stored(tmp_path: Path) -> None:
    vector = np.ones(3, np.float32)
    wrong = [
        {"tensors": {"a": np.ones(3, np.float64)}}, {"tensors": {"a": np.ones((1, 2, 3), np.float32)}},
        {"tensors": {"": vector}}, {"tensors": {"a" * 1025: vector}}, {"tensors": {"__metadata__": vector}},
        {"tensors": {"a": vector * np.float32(np.nan)}}, {"tensors": {"a": vector[:0]}},
        {"tensors": folders.tensors() | {"model.embed_tokens.weight_scale": vector}},
        {"tokenizer_files": {"../x": b""}}, {"tokenizer_files": {"config.json": b""}}, {"recipe": {"a": float("nan")}},
        {"model": {"a": object()}}, {"model": {"vocab_size": 0}}, {"generation": {"eos_token_id": "</s>"}},
        {"generation": {"eos_token_id": [2, 40]}}, {"calibration": {"error": [1]}},
        {"calibration": {"error": {"a": "0.1"}}}, {"calibration": {"error": {"a": True}}},
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises(FormatError):
            folders.save(tmp_path / "model", **change)
        assert not list(tmp_path.iterdir()), change


def test_open_names_what_is_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such folder"):
        Artifact.open(tmp_path / "nothing")
    with pytest.raises(FormatError, match="a file, not a model folder; name the folder that it lies in"):
        Artifact.open(folder / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"config\.json: no such file"):
        Artifact.open(tmp_path / "empty")
    (tmp_path / "empty/config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(FormatError, match="not a Tercet model folder; make one with: tercet quantize"):
        Artifact.open(tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FormatError, match=r"model\.safetensors: no such file"):
        Artifact.open(folder)


def test_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        outside, path = tmp_path / f"outside-{name}", folder / name
        path.rename(outside)
        path.symlink_to(outside)
        with pytest.raises(FormatError, match="leads out of the folder"):
            Artifact.open(folder)
        path.unlink()
        outside.rename(folder / f"kept-{name}")
        path.symlink_to(f"kept-{name}")
        Artifact.open(folder, check=True)
    (tmp_path / "link").symlink_to(folder)
    Artifact.open(tmp_path / "link", check=True)


def test_a_pipe_does_not_hang(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    with pytest.raises(FormatError, match="not a regular file"):
        Artifact.open(folder)
