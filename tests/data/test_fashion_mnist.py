"""Fashion-MNIST out of a small package of the same layout."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from package_files import deb
from tercet.data import packages
from tercet.data.pictures import fashion_mnist
from tercet.errors import FormatError, ModelError

Client = Callable[[str, bytes], list[list[str]]]
COUNTS = {"train": 40, "t10k": 10}
NAME = "dataset-fashion-mnist_1_all.deb"


def idx(values: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return gzip.compress(bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The four files, each picture filled with its own number; nothing is installed."""
    monkeypatch.setattr(fashion_mnist, "INSTALLED", tmp_path / "usr")
    monkeypatch.setattr(fashion_mnist, "COUNTS", COUNTS)
    monkeypatch.setattr(fashion_mnist, "VALIDATION", 5)
    made = {}
    for first, (part, count) in zip((0, 100), COUNTS.items(), strict=True):
        numbers = np.arange(first, first + count, dtype=np.uint8)
        made[f"{part}-images-idx3-ubyte.gz"] = idx(np.tile(numbers[:, None, None], (1, 28, 28)))
        made[f"{part}-labels-idx1-ubyte.gz"] = idx(numbers % 10)
    monkeypatch.setattr(fashion_mnist, "FILES", {k: hashlib.sha256(v).hexdigest() for k, v in made.items()})
    return made


def packed(files: dict[str, bytes], tmp_path: Path) -> bytes:
    return deb([(f".{tmp_path}/usr/{name}", content) for name, content in files.items()])


def test_splits_share_no_picture_and_labels_stay_with_theirs(
    files: dict[str, bytes], client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client(NAME, packed(files, tmp_path))
    splits = {split: fashion_mnist.pictures(split) for split in ("train", "validation", "test")}
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("downloaded twice"))
    expected = {"train": range(35), "validation": range(35, 40), "test": range(100, 110)}
    for split, made in splits.items():
        assert made.pixels.shape == (len(expected[split]), 28, 28, 3)
        assert made.pixels.dtype == np.uint8
        assert made.pixels[:, 5, 9, 2].tolist() == list(expected[split])
        assert made.groups.tolist() == [number % 10 for number in expected[split]]
        for group, captions in zip(made.groups, made.captions, strict=True):
            assert captions[0] == f"a photo of a {fashion_mnist.CLASSES[group]}."
            assert all(fashion_mnist.CLASSES[group] in caption for caption in captions)
    assert splits["test"].classes == fashion_mnist.CLASSES


def test_an_installed_package_is_used_where_it_is(
    files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "usr").mkdir()
    for name, content in files.items():
        (tmp_path / "usr" / name).write_bytes(content)
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("downloaded"))
    assert len(fashion_mnist.pictures("test")) == 10


def test_other_files_are_refused(files: dict[str, bytes], client: Client, tmp_path: Path) -> None:
    name = "t10k-labels-idx1-ubyte.gz"
    client(NAME, packed({**files, name: files[name] + b"x"}, tmp_path))
    with pytest.raises(FormatError, match=f"{name} in dataset-fashion-mnist: not the file that was expected"):
        fashion_mnist.pictures("test")
    assert not (tmp_path / "cache" / "pictures" / "fashion-mnist-1").exists()


def test_a_missing_file_is_named(files: dict[str, bytes], client: Client, tmp_path: Path) -> None:
    del files["train-labels-idx1-ubyte.gz"]
    client(NAME, packed(files, tmp_path))
    with pytest.raises(FormatError, match=r"train-labels-idx1-ubyte\.gz is not in the package"):
        fashion_mnist.pictures("test")


def test_a_changed_file_in_the_cache_is_noticed(files: dict[str, bytes], client: Client, tmp_path: Path) -> None:
    client(NAME, packed(files, tmp_path))
    fashion_mnist.pictures("test")
    path = tmp_path / "cache" / "pictures" / "fashion-mnist-1" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="SHA-256 differs"):
        fashion_mnist.pictures("test")


def test_there_is_no_unseen_split() -> None:
    with pytest.raises(ModelError, match="no split 'unseen'"):
        fashion_mnist.pictures("unseen")
