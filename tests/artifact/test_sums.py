"""Checksums of a packed folder's files: any change is found, by whoever reads the file and by verify."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

import folders
import tiny
from tercet.artifact import Artifact, ModelFolder
from tercet.artifact.sums import FIRST, SUMS, parsed
from tercet.errors import FormatError
from tercet.runtime import Tokenizer

FILES = ("config.json", "recipe.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"tokenizer.json": tiny.tokenizer().to_str().encode(), "tokenizer_config.json": b"{}"}
    folders.save(tmp_path / "model", sealed=True, tokenizer_files=files)
    return tmp_path / "model"


def check(folder: Path) -> None:
    Artifact.open(folder, check=True)


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def test_every_file_but_the_card_is_listed(folder: Path) -> None:
    assert set(ModelFolder(folder).sums) == set(FILES)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", SUMS], cwd=folder, check=True)
    assert Artifact.open(folder, check=True).sealed
    (folder / "README.md").write_text("my own words")
    check(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found(folder: Path, name: str) -> None:
    size = (folder / name).stat().st_size
    for place in sorted({0, size // 3, size // 2, size - 2}):
        flip(folder / name, place)
        with pytest.raises(FormatError) as error:
            check(folder)
        assert name in str(error.value)
        flip(folder / name, place)
    check(folder)


@pytest.mark.parametrize(
    ("name", "read"),
    [("config.json", Artifact.open), ("tokenizer.json", Tokenizer.open), ("tokenizer_config.json", Tokenizer.open)],
)
def test_who_reads_a_file_finds_its_change(folder: Path, name: str, read: Any) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(FormatError, match="SHA256SUMS says") as error:
        read(folder)
    assert name in str(error.value)
    (folder / SUMS).unlink()
    read(folder)


def test_a_folder_without_checksums_opens(folder: Path) -> None:
    (folder / SUMS).unlink()
    assert not Artifact.open(folder, check=True).sealed


def test_any_bit_of_the_list_matters(folder: Path) -> None:
    raw = (folder / SUMS).read_bytes()
    for place in [*range(0, len(FIRST), 7), *range(len(FIRST), len(raw), 3)]:
        flip(folder / SUMS, place)
        with pytest.raises(FormatError):
            check(folder)
        (folder / SUMS).write_bytes(raw)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "recipe.json").unlink()
    with pytest.raises(FormatError, match=r"recipe\.json"):
        check(folder)


def test_lists_of_others_are_none_of_ours() -> None:
    assert parsed(b"0" * 64 + b" *a.bin\n", "x") == {}
    for wrong in (b"0" * 63 + b"  a", b"0" * 64 + b"  a/b", b"0" * 64 + b"  a\n" + b"0" * 64 + b"  a"):
        with pytest.raises(FormatError, match="damaged"):
            parsed(FIRST + wrong, "x")
