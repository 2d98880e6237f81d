"""What training reads of what a user names: pictures with their own captions, in little memory."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fake_clip import paint
from hostile_pictures import encoded, picture
from tercet.data.captioned import captioned, captions
from tercet.errors import FormatError


def test_class_folders_say_their_own_class(tmp_path: Path) -> None:
    for split, classes in (("train", ("cat", "dog")), ("test", ("ant", "cat", "dog"))):
        for name in classes:
            paint(tmp_path / split / name / "1.png", "red")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a {c} {of} {0}\n{}, {\n")
    made = captioned(str(tmp_path))
    assert made.captions == (("a cat {of} {0}", "cat, {"), ("a dog {of} {0}", "dog, {"))
    assert captioned(str(tmp_path), "test").captions[0] == ("a ant {of} {0}", "ant, {")
    paint(tmp_path / "train" / "bee" / "1.png", "red")
    with pytest.raises(FormatError, match="'bee': the test pictures have no such class"):
        captioned(str(tmp_path))


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    _tar(tmp_path / "0.tar", {"1.png": encoded(picture(), "PNG"), "1.cls": b"2"})
    (tmp_path / "classnames.txt").write_text("dog\ncat\n")
    with pytest.raises(FormatError, match="is of class 2, but there are names for 2"):
        captioned(str(tmp_path))


def test_pictures_of_a_tar_are_read_when_they_are_needed(tmp_path: Path) -> None:
    content = encoded(picture().resize((300, 300)), "BMP")
    _tar(
        tmp_path / "0.tar",
        {f"{n}.{kind}": content if kind == "bmp" else b"x" for n in range(40) for kind in ("bmp", "txt")},
    )
    tracemalloc.start()
    made = captioned(str(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(made) == 40
    assert peak < 2 * len(content)
    np.testing.assert_array_equal(made.pixels[39], np.asarray(picture().resize((300, 300))))


def test_captions_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("a dog\n\n a cat\n", encoding="utf-8-sig")
    assert captions(tmp_path / "t.txt") == ["a dog", "a cat"]


def _tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
