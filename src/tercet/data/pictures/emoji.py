"""Emoji: about 1,900 names, each drawn by several artists, all of them under free licences.

    Twemoji (npm emoji-datasource-twitter)      CC-BY 4.0, (c) Twitter, Inc. and other contributors
    Fluent Emoji 3D (npm @lobehub/fluent-emoji-3d)   MIT, (c) Microsoft Corporation
    Noto Emoji (npm emoji-datasource-google)    Apache-2.0, (c) Google

Apple's and Facebook's drawings, which the same npm family has, are not free and never asked for. Names and short names
are those of emoji-datasource (MIT).

Splits: a model learns a name from the drawing of Twemoji, Fluent or both. For a tenth of the emoji Twemoji's drawing is
in the test split, for another tenth Fluent's, for a twentieth each in the validation split: so their names are known,
the drawings are not. Which, depends on the code points alone. `unseen` is every drawing of Noto: an artist of whom
training has nothing. Skin tones are left out. Transparent parts become white.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tercet.data.packages import npm_members
from tercet.data.pictures.base import Pictures, Split, bucket
from tercet.errors import FormatError, ModelError
from tercet.sources import cache

__all__ = ["VENDORS", "Vendor", "pictures"]

SIDE = 64
MAX_SIDE = 512
VERSION = 1
TONES = ("-1f3fb", "-1f3fc", "-1f3fd", "-1f3fe", "-1f3ff")


class Vendor(NamedTuple):
    """One artist's drawings: the npm package, its folder of pictures, what is asked of the npm client."""

    package: str
    version: str
    sha256: str
    size: str
    folder: str
    suffix: str

    def wants(self, path: str) -> bool:
        """A drawing without skin tone, or the table of names."""
        drawing = path.startswith(self.folder) and path.endswith(self.suffix)
        return path == "emoji.json" or (drawing and not any(tone in path for tone in TONES))


VENDORS = {
    "twemoji": Vendor(
        "emoji-datasource-twitter",
        "16.0.0",
        "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
        "62 MB",
        "img/twitter/64/",
        ".png",
    ),
    "fluent": Vendor(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "16 MB",
        "assets/",
        ".webp",
    ),
    "noto": Vendor(
        "emoji-datasource-google",
        "16.0.0",
        "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
        "74 MB",
        "img/google/64/",
        ".png",
    ),
}
SEEN = ("twemoji", "fluent")
# Of twenty emoji: the split that one vendor's drawing goes to instead of `train`.
SET_ASIDE: dict[int, tuple[str, Split]] = {
    0: ("twemoji", "test"),
    1: ("twemoji", "test"),
    2: ("fluent", "test"),
    3: ("fluent", "test"),
    4: ("twemoji", "validation"),
    5: ("fluent", "validation"),
}


def pictures(split: Split) -> Pictures:
    """Drawings uint8[n, 64, 64, 3] with their names; groups are the emoji.

    Raises ModelError (npm or a package is not to be had, or Pillow is missing), FormatError (another package came).
    """
    vendors = ("noto",) if split == "unseen" else SEEN
    drawn = {vendor: _drawings(vendor) for vendor in vendors}
    pixels, captions, groups = [], [], []
    for number, (code, names) in enumerate(_names(vendors[0]).items()):
        for vendor, drawings in drawn.items():
            both = all(code in drawn[other] for other in vendors)
            if code in drawings and _split(code, vendor, both) == split:
                pixels.append(drawings[code])
                captions.append(_captions(names))
                groups.append(number)
    return Pictures("emoji", np.stack(pixels), tuple(captions), np.array(groups, np.int64))


def _split(code: str, vendor: str, both: bool) -> Split:
    """Where one vendor's drawing of an emoji goes; `both` says that the other vendor's is there as well."""
    if vendor not in SEEN:
        return "unseen"
    aside = SET_ASIDE.get(bucket(code, 20))
    return aside[1] if aside and both and vendor == aside[0] else "train"


def _captions(names: list[str]) -> tuple[str, ...]:
    plain = names[0]
    return (f"an emoji of {plain}", plain, f"a drawing of {plain}", *(f"{short} emoji" for short in names[1:]))


def _names(vendor: str) -> dict[str, list[str]]:
    """The names of every emoji by its code points, the Unicode name first, in the order of the code points.

    Two emoji of one name (there is such a pair) count as the first of them: a caption has one meaning.
    """
    found: dict[str, list[str]] = {}
    for entry in json.loads((_entry(vendor) / "emoji.json").read_bytes()):
        names = [entry["name"], *entry["short_names"]]
        plain = list(dict.fromkeys(name.lower().replace("_", " ").replace("flag-", "flag ") for name in names))
        found[entry["image"].removesuffix(".png")] = plain
    first = {names[0]: code for code, names in sorted(found.items(), reverse=True)}
    return {code: names for code, names in sorted(found.items()) if first[names[0]] == code}


def _drawings(vendor: str) -> dict[str, NDArray[np.uint8]]:
    with np.load(_entry(vendor) / "drawings.npz", allow_pickle=False) as stored:
        return dict(zip(stored["codes"].tolist(), stored["pixels"], strict=True))


def _entry(vendor: str) -> Path:
    return cache.entry("pictures", f"{vendor}-{VERSION}", lambda folder: _make(VENDORS[vendor], folder))


def _make(vendor: Vendor, folder: Path) -> None:
    """drawings.npz with codes (str[n]) and pixels (uint8[n, 64, 64, 3]); emoji.json where the package has it."""
    codes, pixels = [], []
    for path, content in npm_members(vendor.package, vendor.version, vendor.sha256, vendor.size, vendor.wants):
        if path == "emoji.json":
            (folder / path).write_bytes(content)
        else:
            codes.append(path.removeprefix(vendor.folder).removesuffix(vendor.suffix))
            pixels.append(_decoded(content, f"{vendor.package}: {path}"))
    if not codes:
        raise FormatError(f"{vendor.package}: no {vendor.suffix} in {vendor.folder}; get it again")
    np.savez(folder / "drawings.npz", codes=np.array(codes), pixels=np.stack(pixels))


def _decoded(content: bytes, origin: str) -> NDArray[np.uint8]:
    """A PNG or WebP drawing on white, 64 by 64. Its size is looked at before it is decoded."""
    try:
        from PIL import Image
    except ImportError:
        raise ModelError("emoji need Pillow to be decoded; pip install 'tercet[images]'") from None
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "WEBP")) as opened:
            if max(opened.size) > MAX_SIDE:
                raise FormatError(f"{origin}: {opened.size} pixels, no emoji is that large; do not trust it")
            picture = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"{origin}: not a PNG or WebP picture ({str(error)[:80]}); get it again") from None
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, picture).convert("RGB")
    return np.asarray(flat if flat.size == (SIDE, SIDE) else flat.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
