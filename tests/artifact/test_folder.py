"""Files of a model folder that are none: every reader refuses every kind in one line, and in no time."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fake_clip
import folders
import tiny
from tercet import sources
from tercet.artifact import Artifact, ModelFolder
from tercet.errors import FormatError
from tercet.runtime import Tokenizer
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.embedder import fingerprint
from tercet.runtime.pictures.preprocess import Preprocessor


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("a reader hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A packed folder of texts, the small files of a packed CLIP, a source, a source in shards."""
    root = tmp_path_factory.mktemp("whole")
    source = tiny.save_folder(root / "source")
    (source / "chat_template.jinja").write_text("{{ messages }}")
    shutil.copytree(source, root / "shards")
    (root / "shards/model.safetensors").rename(root / "shards/a.safetensors")
    (root / "shards/model.safetensors.index.json").write_text('{"weight_map": {"a": "a.safetensors"}}')
    files = {name: (source / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    folders.save(root / "packed", tokenizer_files=files)
    (root / "clip").mkdir()
    fake_clip.save_tokenizer(root / "clip")
    (root / "clip/preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
    return {name: root / name for name in ("source", "shards", "packed", "clip")}


def resolve(folder: Path) -> None:
    sources.resolve(str(folder)).tokenizer_files()


def captions(folder: Path) -> None:
    CaptionTokenizer.open(folder, 8)


READERS: list[tuple[str, str, Callable[[Path], Any]]] = [
    ("packed", "config.json", Artifact.open),
    ("packed", "model.safetensors", Artifact.open),
    ("packed", "config.json", Tokenizer.open),
    ("packed", "tokenizer.json", Tokenizer.open),
    ("packed", "tokenizer_config.json", Tokenizer.open),
    ("packed", "tokenizer.json", fingerprint),
    ("clip", "tokenizer.json", captions),
    ("clip", "tokenizer_config.json", captions),
    ("clip", "preprocessor_config.json", Preprocessor.open),
    ("source", "config.json", resolve),
    ("source", "generation_config.json", resolve),
    ("source", "model.safetensors", resolve),
    ("source", "tokenizer.json", resolve),
    ("source", "tokenizer_config.json", resolve),
    ("source", "chat_template.jinja", resolve),
    ("shards", "model.safetensors.index.json", resolve),
    ("shards", "a.safetensors", resolve),
]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.mkdir()


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def outside(path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_text("the key is hunter2")
    path.symlink_to(secret)


KINDS = {
    pipe: "not a regular file",
    directory: "not a regular file",
    device: "leads out of the folder",
    loop: "symbolic links",
    outside: "leads out of the folder",
}


@pytest.mark.parametrize(("which", "name", "read"), READERS)
@pytest.mark.parametrize("make", KINDS)
def test_what_is_no_file_of_the_folder_is_refused(
    whole: dict[str, Path], tmp_path: Path, which: str, name: str, read: Callable[[Path], Any], make: Any
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole[which], folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    with pytest.raises(FormatError, match=KINDS[make]) as error:
        read(folder)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


TEXTS = {
    b'{"a": 1, "a": 2}': "duplicate key",
    b'{"a": NaN}': "NaN",
    b"[]": "not a JSON object",
    b"\xff{}": "not Unicode",
    b"[" * 200 + b"]" * 200: "nested deeper",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n": "git lfs pull",
}
JSON = [row for row in READERS if row[1].endswith("config.json") or row[1].endswith("index.json")]


@pytest.mark.parametrize(("which", "name", "read"), JSON)
@pytest.mark.parametrize("text", TEXTS)
def test_what_is_no_strict_json_is_refused(
    whole: dict[str, Path], tmp_path: Path, which: str, name: str, read: Callable[[Path], Any], text: bytes
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole[which], folder)
    (folder / name).write_bytes(text)
    with pytest.raises(FormatError, match=TEXTS[text]) as error:
        read(folder)
    assert name in str(error.value)


SMALL = [row for row in READERS if not row[1].endswith("safetensors") and row[2] is not fingerprint]


@pytest.mark.parametrize(("which", "name", "read"), SMALL)
def test_a_file_longer_than_such_a_file_can_be_is_refused(
    whole: dict[str, Path], tmp_path: Path, which: str, name: str, read: Callable[[Path], Any]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole[which], folder)
    with (folder / name).open("r+b") as file:
        file.truncate((64 << 20) + 1)  # a hole
    with pytest.raises(FormatError, match="MiB") as error:
        read(folder)
    assert name in str(error.value)


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.json").symlink_to("a.json")
    assert ModelFolder(tmp_path).json("b.json") == {"a": 1}
    (tmp_path / "link").symlink_to(tmp_path)
    assert ModelFolder(tmp_path / "link").json("b.json") == {"a": 1}


def test_the_hub_s_cache_is_links_to_its_own_blobs(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots/main", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "1234").write_text('{"a": 1}')
    (snapshot / "config.json").symlink_to("../../blobs/1234")
    assert ModelFolder(snapshot).json("config.json") == {"a": 1}
    (tmp_path / "models--a--b/refs").write_text("{}")
    (snapshot / "other.json").symlink_to("../../refs")
    with pytest.raises(FormatError, match="leads out"):
        ModelFolder(snapshot).json("other.json")


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "a\0b"])
def test_only_plain_names_are_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="not a plain file name"):
        ModelFolder(tmp_path).read(name)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "missing", "x" * 5000])
def test_a_path_that_is_no_folder(path: str) -> None:
    with pytest.raises(FormatError) as error:
        ModelFolder(path)
    assert "\n" not in str(error.value)


def test_many_small_values_are_not_built(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"a": []})[:-2] + "[]," * (5 << 20) + "0]}")
    with pytest.raises(FormatError, match="values in one file"):
        ModelFolder(tmp_path).json("tokenizer.json")
