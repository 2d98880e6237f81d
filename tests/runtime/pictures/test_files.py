"""Opening: pictures open upright with their pixels; anything else is refused in one line, before memory is taken."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from hostile_pictures import encoded, hostile, picture, tiled
from tercet.errors import FormatError
from tercet.runtime.pictures import files as picture_files
from tercet.runtime.pictures.files import MAX_DECODED, UnreadError, open_picture


@pytest.mark.parametrize("form", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF"])
def test_pixels_come_back(form: str) -> None:
    image = picture() if form != "GIF" else picture().convert("P")
    content = encoded(image, form, **({"lossless": True} if form == "WEBP" else {}))
    np.testing.assert_array_equal(np.asarray(open_picture(content).convert("RGB")), np.asarray(image.convert("RGB")))


def test_a_path_opens_as_its_content_does(tmp_path: Path) -> None:
    path = tmp_path / "a picture.jpg"
    path.write_bytes(encoded(picture(), "JPEG"))
    assert open_picture(path).tobytes() == open_picture(path.read_bytes()).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(picture(), "PNG", exif=exif)
    made = open_picture(content)
    with Image.open(io.BytesIO(content)) as image:
        np.testing.assert_array_equal(np.asarray(made), np.asarray(ImageOps.exif_transpose(image)))
    assert made.size == ((40, 30) if orientation < 5 else (30, 40))


def test_a_transparent_colour_survives_the_rotation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = open_picture(encoded(picture().convert("P"), "PNG", exif=exif, transparency=7))
    assert made.info["transparency"] is not None


def test_a_pgm_of_16_bits_is_called_so() -> None:
    with pytest.raises(FormatError, match="a PGM of more than 8 bits; save it with 8, or as PNG"):
        open_picture(b"P5\n2 1\n65535\n" + bytes(4))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_bytes(form: str) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (30, 40)).astype(np.uint16)
    made = open_picture(encoded(Image.fromarray(values), form))
    np.testing.assert_array_equal(np.asarray(made), values >> 8)


def test_a_jpeg_of_several_pictures_is_a_still() -> None:
    content = encoded(picture(), "MPO", save_all=True, append_images=[picture(20, 10)])
    assert open_picture(content).size == (40, 30)


@pytest.mark.parametrize("name", sorted(hostile()))
def test_hostile_files_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        open_picture(hostile()[name], name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("tile", "turns"), [(64, 0), (3000, 1)])
def test_a_small_picture_in_a_large_tile_is_a_large_one(tile: int, turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        taken.append(1)
        yield

    monkeypatch.setattr(picture_files, "_one_large", turn())
    assert open_picture(tiled(16, tile)).size == (16, 16)
    assert len(taken) == turns


def test_memory_that_is_short_says_nothing_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(_: object) -> None:
        raise MemoryError

    content = encoded(picture(), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", short)
    with pytest.raises(UnreadError, match="not enough memory"):
        open_picture(content)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, tmp_path / "missing.png", Path("/dev/zero")):
        with pytest.raises(FormatError, match=r"^[^\n]+$"):
            open_picture(path)


CONTENT = {
    form: encoded(picture(24, 18), form, **options)
    for form, options in {
        "JPEG": {},
        "PNG": {},
        "WEBP": {},
        "TIFF": {"compression": "tiff_lzw"},
        "GIF": {},
        "BMP": {},
    }.items()
}


@given(form=st.sampled_from(sorted(CONTENT)), data=st.data())
@settings(max_examples=400, deadline=None)
def test_a_damaged_file_opens_or_is_refused(form: str, data: st.DataObject) -> None:
    content = bytearray(CONTENT[form])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    with contextlib.suppress(FormatError):
        made = open_picture(bytes(content[:cut]))
        assert made.width * made.height * 3 < MAX_DECODED


LARGEST = """
import re, sys, threading
from pathlib import Path
from tercet.runtime.pictures.files import opened
from tercet.runtime.pictures.preprocess import Preprocessor
prepare = Preprocessor.from_config({})
def work():
    for path in sys.argv[1:]:
        with opened(path) as picture:
            prepare(picture)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
# Not getrusage's: that one begins with what the process that started this one had.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10)
"""


def test_the_largest_pictures_in_many_threads_stay_within_memory(tmp_path: Path) -> None:
    """Each is as large as is allowed; decoded at once they would take a gigabyte."""
    Image.new("RGBA", (5700, 5700), (1, 2, 3, 4)).save(tmp_path / "a.png", compress_level=1)
    Image.new("RGB", (5100, 5100)).save(tmp_path / "b.jpg", progressive=True)
    paths = sorted(map(str, tmp_path.iterdir()))
    result = subprocess.run([sys.executable, "-c", LARGEST, *paths], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 450
