"""Pairs of pictures and captions as training reads them: drawn, grouped, left out, kept on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny_clip
from tercet import sources
from tercet.data import pairs as data_module
from tercet.data.captioned import captioned
from tercet.data.pairs import Reader, gather
from tercet.errors import StorageError, TercetError


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    return Reader.open(sources.resolve(str(tiny_clip.folder(tmp_path / "clip"))))


def test_rows_draw_captions_and_keep_groups(reader: Reader) -> None:
    pictures = tiny_clip.Coloured(16, half=True)
    data = gather([pictures], reader, 40, 0, captions=["photo", "red", "photo"])
    assert len(data.rows) == 40
    assert len(data.patches) == 16  # 8 with captions, 8 without
    assert len(data.more_patches) == 8
    assert len(data.more_ids) == 1  # "red" is a picture's caption already
    arrays = data.arrays(None, None)
    assert all(len(array) == 40 for array in arrays.values())
    texts = {text: row.tobytes() for text in ("red", "a photo of the red") for row in reader.captions([text])}
    red = arrays["ids"][
        arrays["groups"] == arrays["groups"][[row.tobytes() in texts.values() for row in arrays["ids"]]][0]
    ]
    assert {row.tobytes() for row in red} == set(texts.values())
    again = gather([pictures], reader, 40, 0, captions=["photo", "red", "photo"])
    assert again.digest == data.digest
    assert gather([pictures], reader, 40, 1).digest != data.digest


def test_many_pictures_are_kept_on_the_disk(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = tiny_clip.Coloured(16)
    small = gather([pictures], reader, 20, 0)
    monkeypatch.setattr(data_module, "LARGE", 1)
    large = gather([pictures], reader, 20, 0)
    assert isinstance(large.patches, np.memmap)
    assert np.array_equal(small.patches, large.patches)
    assert small.digest == large.digest
    monkeypatch.setattr("os.posix_fallocate", _no_room)
    with pytest.raises(StorageError, match="no room"):
        gather([pictures], reader, 20, 0)


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_pictures_that_cannot_be_read_are_left_out(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pairs.csv").write_text("image,caption\ngood.png,red\nbad.png,green\n")
    Image.fromarray(tiny_clip.Coloured(1).pixels[0]).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG no more")
    data = gather([captioned(str(tmp_path / "pairs.csv"))], reader, 10, 0)
    assert len(data.rows) == 5
    assert len(set(data.rows[:, 0])) == 1
    assert "1 of 2 pictures cannot be read" in caplog.text
    (tmp_path / "good.png").write_bytes(b"")
    with pytest.raises(TercetError, match="no picture with a caption could be read"):
        gather([captioned(str(tmp_path / "pairs.csv"))], reader, 10, 0)


def test_only_equal_captions_join_pictures(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("image,caption\na.png,red\na.png,green\nb.png,red\nb.png,blue\n")
    found = captioned(str(tmp_path / "pairs.csv"))
    assert list(found.groups) == [0, 1]
