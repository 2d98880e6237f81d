"""Files that a picture reader must refuse in one line, made in memory."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["encoded", "hostile", "picture", "tiled", "write"]


def picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels, "RGB")


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)  # type: ignore[arg-type]
    return file.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _bomb(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of black rows, a thousandth of its decoded size; of the largest only the beginning."""
    row = 1 + (width * depth * {0: 1, 2: 3, 6: 4}[colour] + 7) // 8
    packer = zlib.compressobj(9)
    data = packer.compress(bytes(min(row * height, 3_000_000))) + packer.flush()
    return _png(width, height, data, depth, colour)


def _claims(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG with other sizes in its frame header."""
    start = jpeg.index(b"\xff\xc0") if b"\xff\xc0" in jpeg else jpeg.index(b"\xff\xc2")
    return jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :]


@functools.cache
def hostile() -> dict[str, bytes]:
    """Content by file name."""
    image = picture()
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    frames = [picture(seed=seed) for seed in range(3)]
    together = {"save_all": True, "append_images": frames[1:]}
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000), 9))
    return {
        "bomb-wide.png": _bomb(60_000, 60_000),
        "bomb-grey.png": _bomb(20_000, 20_000, colour=0),
        "bomb-bits.png": _bomb(65_000, 65_000, depth=1, colour=0),
        "bomb-alpha.png": _bomb(9_000, 9_000, colour=6),
        "bomb-limit.png": _bomb(2**31 - 1, 2**31 - 1),
        "bomb-line.png": _bomb(1, 2**31 - 1),
        "bomb-text.png": png[:33] + text + png[33:],
        "zero.png": _png(0, 0, zlib.compress(b"")),
        "bomb.jpg": _claims(jpeg, 65_500, 65_500),
        "bomb-progressive.jpg": _claims(encoded(image, "JPEG", progressive=True), 8_000, 8_000),
        "bomb.gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(6) + b"," + bytes(9) + b";",
        "bomb.bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, 50_000, 1, 24, 0, 0, 0, 0, 0, 0),
        "bomb.ppm": b"P6 60000 60000 255\n",
        "bomb.webp": _webp(16_383, 16_383),
        "bomb-tile.tif": tiled(16, 10_000),
        "bomb.tif": _widened(encoded(image, "TIFF"), 90_000),
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 2],
        "cut.webp": encoded(image, "WEBP")[:60],
        "cut.gif": encoded(image, "GIF")[:300],
        "cut.tif": encoded(image, "TIFF")[:300],
        "cut.bmp": encoded(image, "BMP")[:300],
        "head.jpg": jpeg[:20],
        "empty.jpg": b"",
        "text.jpg": b"I am no picture.\n" * 40,
        "page.png": b"<!doctype html><script>alert(1)</script>",
        "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.jpg": b"PK\x03\x04" + bytes(200),
        "script.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "moving.gif": encoded(frames[0], "GIF", **together),
        "moving.png": encoded(frames[0], "PNG", **together),
        "moving.webp": encoded(frames[0], "WEBP", **together),
        "pages.tif": encoded(frames[0], "TIFF", **together),
        "float.tif": encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    }


def _widened(tiff: bytes, side: int) -> bytes:
    """A TIFF whose directory claims that width and height."""
    for tag, length in ((256, 40), (257, 30)):
        tiff = tiff.replace(struct.pack("<HHII", tag, 4, 1, length), struct.pack("<HHII", tag, 4, 1, side))
    return tiff


def tiled(side: int, tile: int) -> bytes:
    """A deflated grey TIFF of side x side pixels in a single tile of tile x tile."""
    packer, left = zlib.compressobj(1), tile * tile
    data = b"".join(packer.compress(bytes(min(1 << 20, left - start))) for start in range(0, left, 1 << 20))
    data += packer.flush()
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 0, 325: len(data)}
    tags[324] = 14 + 12 * len(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def _webp(width: int, height: int) -> bytes:
    """A lossless WebP header of that size, without pixels."""
    bits = (width - 1) | (height - 1) << 14
    body = b"VP8L" + struct.pack("<I", 12) + b"\x2f" + struct.pack("<I", bits) + bytes(7)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def write(folder: Path) -> list[str]:
    """All of them as files, and their names."""
    made = hostile()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (folder / name).write_bytes(content)
    return sorted(made)
