"""Opens picture files that nobody vouches for: a decoded picture of bounded size, or one line that says why not.

The size in the header is judged before a byte is decoded. What a picture takes is itself, its RGB copy, and what the
format keeps beside it: a progressive JPEG all its coefficients, WebP two canvases, TIFF a whole tile, however small the
picture in it. Together they may be at most MAX_DECODED: 67 million pixels of a plain JPEG, 33 million of an RGBA PNG,
27 million of a progressive JPEG. Large pictures are decoded and worked on one at a time, whatever the number of
threads, so that memory is bounded for all of them together: hence `opened`, which holds the turn until the picture has
been used.

Refused: animations (which frame is meant?), 32-bit and float samples, formats other than FORMATS, and what is no
regular file. 16-bit samples are cut to their high bytes; Pillow's own conversion of 16-bit grey clips at 255, which
makes such pictures white. EXIF orientation is applied, as transformers' load_image does.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import open_regular
from tercet.errors import FormatError, TercetError
from tercet.runtime.section import Section, Window

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "UNREAD",
    "PictureSource",
    "UnreadError",
    "left_out",
    "open_picture",
    "opened",
    "pillow",
]

PictureSource = str | Path | Section | bytes | NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
UNREAD = (  # pictures too, by their endings, but of formats that nobody reads here
    ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".svg", ".psd", ".ico", ".tga", ".exr", ".hdr",
    ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".sr2", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".raw",
)  # fmt: skip
MAX_FILE = 64 << 20
MAX_DECODED = 256 << 20
BLOCK = 64 << 20  # above what malloc ever takes from a heap: such blocks go back to the system at once
LARGE = 24 << 20  # bytes decoded; larger ones wait for each other
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}  # a pixel, in Pillow's memory; others 4
BESIDE = {"WEBP": 16}  # a pixel, while it is decoded
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")
ORIENTATION = 0x0112
BITS_PER_SAMPLE, SAMPLES_PER_PIXEL, TILE_WIDTH, TILE_LENGTH = 258, 277, 322, 323  # tags of TIFF

_one_large = threading.Lock()


class UnreadError(FormatError):
    """A picture could not be read this time, which says nothing of it: not enough memory."""


@contextlib.contextmanager
def opened(source: PictureSource, name: str | None = None) -> Iterator[Image]:
    """A decoded picture, upright, of one of MODES, closed afterwards; a large one is open while no other large one is.

    Args:
        source: a path, where it lies in another file, a file's content, or pixels uint8[h, w, 3].
        name: what errors call it; the path if absent.

    Raises FormatError, one line: not there, no picture, cut off, animated, too large; UnreadError where memory is
    short; TercetError where Pillow is missing.
    """
    with _decoded(source, name) as picture:
        try:
            yield picture
        finally:
            picture.close()  # its pixels go before the turn does


def open_picture(source: str | Path | Section | bytes, name: str | None = None) -> Image:
    """As `opened`, for one picture at a time; it stays open."""
    with _decoded(source, name) as picture:
        return picture


@contextlib.contextmanager
def _decoded(source: PictureSource, name: str | None) -> Iterator[Image]:
    where = name or (str(source) if isinstance(source, str | Path) else "picture")
    images = pillow()
    if isinstance(source, np.ndarray):
        yield images.fromarray(source)
        return
    with _file(source, where) as file:
        with _refused(where):
            picture = images.open(file, formats=FORMATS)
            cost = _cost(picture, where)
        with _one_large if cost > LARGE else contextlib.nullcontext():
            with _refused(where):
                picture.load()
                picture = _usual(picture)
            yield picture


def left_out(endings: Mapping[str, int]) -> str:
    """What is said of pictures that were passed over, counted by ending: "3 .heic and 1 .avif are left out; ..."."""
    counted = " and ".join(f"{count} {ending}" for ending, count in sorted(endings.items()))
    return f"{counted} left out, a format that is not read; save them as JPEG or PNG"


def pillow() -> Any:
    """Pillow's Image module, set up for use here. Raises TercetError where it is missing."""
    try:
        from PIL import Image, TiffImagePlugin  # noqa: F401  (named, so that its absence is found here)
    except ImportError:
        raise TercetError("pictures are read with Pillow; pip install 'tercet[images]'") from None
    # In blocks of the default 16 MB, pictures would lie in the heap of the thread that made them, and stay there.
    core: Any = Image.core  # type: ignore[attr-defined]
    if core.get_block_size() < BLOCK:
        core.set_block_size(BLOCK)
    # The size is judged here; Pillow's own warning would only add lines to stderr.
    if not any(item[2] is Image.DecompressionBombWarning for item in warnings.filters):
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


@contextlib.contextmanager
def _file(source: str | Path | Section | bytes, where: str) -> Iterator[Any]:
    if isinstance(source, bytes):
        if len(source) > MAX_FILE:
            raise FormatError(f"{where}: {len(source) >> 20} MB; at most {MAX_FILE >> 20} are read")
        yield io.BytesIO(source)
        return
    section, path = (source, source.path) if isinstance(source, Section) else (None, Path(source))
    with os.fdopen(open_regular(path), "rb") as file:
        size = section.size if section else os.fstat(file.fileno()).st_size
        if size > MAX_FILE:
            raise FormatError(f"{where}: {size >> 20} MB; at most {MAX_FILE >> 20} are read")
        yield io.BufferedReader(Window(file, section)) if section else file


@contextlib.contextmanager
def _refused(where: str) -> Iterator[None]:
    """Whatever a decoder raises, in one line: they raise nearly everything."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except FormatError:
        raise
    except UnidentifiedImageError:
        raise FormatError(f"{where}: no picture of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise FormatError(f"{where}: far too many pixels; make it smaller") from None
    except MemoryError:
        raise UnreadError(f"{where}: not enough memory to decode it") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FormatError(f"{where}: cannot be decoded: {reason}; is it whole?") from None


def _cost(picture: Any, where: str) -> int:
    """Bytes that decoding takes. Raises FormatError: animated, of an unusual kind, or more than MAX_DECODED."""
    # A JPEG of several pictures (MPO: previews, depth maps) is a still; its first picture is the one.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise FormatError(f"{where}: animated or of several pages; save the picture that is meant")
    if picture.mode == "I" and picture.format == "PPM":  # whose 9 to 16 bits Pillow widens
        raise FormatError(f"{where}: a PGM of more than 8 bits; save it with 8, or as PNG")
    if picture.mode in ("I", "F"):
        raise FormatError(f"{where}: samples of 32 bits; save it with 8 or 16")
    own = BYTES.get(picture.mode, 4)
    beside = BESIDE.get(picture.format, 0) + (0 if picture.mode == "RGB" else 4)
    if picture.format in ("JPEG", "MPO") and picture.info.get("progressive"):
        beside += 6
    # A PNG whose Exif does not come before its pixels would be decoded by getexif.
    undecoded = picture.format != "PNG" or "exif" in picture.info
    if undecoded and picture.getexif().get(ORIENTATION, 1) != 1:
        beside += own
    cost = int(picture.width) * int(picture.height) * (own + beside)
    if picture.format == "TIFF":
        cost += _block(picture, where)
    if cost > MAX_DECODED:
        size = f"{picture.width} x {picture.height}"
        raise FormatError(
            f"{where}: {size} pixels take {cost >> 20} MB to decode; at most {MAX_DECODED >> 20}, make it smaller"
        )
    return cost


def _block(picture: Any, where: str) -> int:
    """Bytes of what libtiff decodes at once: a tile, which may be larger than its picture, or a strip, which is not."""
    tags = picture.tag_v2
    sides = [tags.get(TILE_WIDTH, 0), tags.get(TILE_LENGTH, 0)]
    if not all(isinstance(side, int) for side in sides):
        raise FormatError(f"{where}: a tile's size is no number; is it whole?")
    bits = max(tags.get(BITS_PER_SAMPLE, (1,))) * tags.get(SAMPLES_PER_PIXEL, 1)
    pixels = max(int(picture.width) * int(picture.height), sides[0] * sides[1])
    return int(pixels * max(bits / 8, 4))  # 4: where colours are subsampled, RGBA is made of them


def _usual(picture: Image) -> Image:
    """Upright, 8 bits a sample."""
    from PIL import Image as images
    from PIL import ImageOps

    if picture.mode.startswith("I;16"):
        info = picture.info
        picture = images.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture.info = info
    elif picture.mode not in MODES:
        picture = picture.convert("RGB")
    ImageOps.exif_transpose(picture, in_place=True)
    return picture
