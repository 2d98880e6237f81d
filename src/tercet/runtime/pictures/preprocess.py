"""Pictures as a CLIP-like model reads them: resize, crop, rescale, normalise; no torch.

    RGB u8[h, w, 3] -> resize (Pillow's bicubic, antialiased) -> centre crop
    -> table[channel, u8] = (u8 * scale - mean) / std

Three descriptions of the same steps are read: preprocessor_config.json of CLIP (shortest edge, then crop), that of
SigLIP (the exact size), and open_clip's preprocess_cfg (shortest, longest or squash). Their rounding differs by a pixel
where a margin is odd: transformers crops at floor(margin / 2), torchvision at round(margin / 2), to even.
Transparency lies on white in transformers 5. open_clip drops it, and converts to RGB last: what resizing does to a mode
is Pillow's (a palette's nearest colours; nothing of what is fully transparent), but margins are of RGB here.

A channel has 256 values, so rescaling and normalising are one table of 3 * 256 floats: the reference's own float32
steps, exactly. Where the aspect ratio would blow the resized picture up (1 x 10,000 pixels become 224 x 2,240,000),
only the part that the crop keeps is computed, with the filter's reach around it; Pillow takes its place as float32, so
a value may then differ by a level.

It does not open files (`tercet.runtime.pictures.files`), and reads no NaFlex (Siglip2ImageProcessor) configuration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import ModelFolder
from tercet.errors import FormatError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CONFIG", "Preprocessor", "on_white"]

CONFIG = "preprocessor_config.json"
MAX_SIDE = 4096
MAX_RESIZED = 16 << 20  # pixels; a larger result of the resize is computed only where the crop keeps it
BICUBIC, BILINEAR = 3, 2
REACH = 3  # source pixels on each side, times the shrink factor: Lanczos' reach, the widest of Pillow's filters
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
KNOWN = ("CLIP", "Siglip", "ViT", "ChineseCLIP")


@dataclass(frozen=True)
class Preprocessor:
    """Picture -> float32[3, height, width].

    Attributes:
        resize: what of the picture becomes `size`: its shortest or longest edge, or all of it (exact).
        size: height and width of the resized picture; for an edge, both are that edge's.
        crop: height and width of the result.
        rounding: how half a pixel of margin is rounded: transformers' floor, or torchvision's to even.
        resample: Pillow's number of the filter; 3 is bicubic.
        white: transparency is laid on white, before anything else; else dropped, after resizing.
        fill: value of the margin where the crop is larger than the picture.
        scale, mean, std: value = (u8 * scale - mean) / std.
    """

    resize: Literal["shortest", "longest", "exact"] | None
    size: tuple[int, int]
    crop: tuple[int, int]
    rounding: Literal["floor", "even"] = "floor"
    resample: int = BICUBIC
    white: bool = True
    fill: int = 0
    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    _table: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        values = (np.arange(256) * np.float64(self.scale)).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        object.__setattr__(self, "_table", (values - mean[:, None]) / std[:, None])

    @classmethod
    def open(cls, folder: str | Path) -> Preprocessor:
        """That of a packed folder. Raises FormatError: no preprocessor_config.json, or none that is understood."""
        files = ModelFolder(folder)
        return cls.from_config(files.json(CONFIG), str(files / CONFIG))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], where: str = CONFIG) -> Preprocessor:
        """Reads what a preprocessor_config.json or open_clip's preprocess_cfg holds.

        Raises FormatError: a value is missing or impossible, or the processor is of an unknown kind.
        """
        if "image_mean" not in config and ("mean" in config or "resize_mode" in config or "interpolation" in config):
            return _open_clip(config, where)
        return _transformers(config, where)

    def __call__(self, picture: Image) -> NDArray[np.float32]:
        """float32[3, height, width] of a picture of any mode and size."""
        source = on_white(picture) if self.white else picture
        height, width = self._resized(source.height, source.width)
        if self.resize == "shortest" and height * width > MAX_RESIZED:
            pixels = self._part(source, height, width)
        elif (height, width) == (source.height, source.width):
            pixels = self._cropped(_rgb(source))
        else:
            pixels = self._cropped(_rgb(source.resize((width, height), self.resample)))
        return np.stack([self._table[channel][pixels[:, :, channel]] for channel in range(3)])

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize == "exact":
            return self.size
        if self.resize == "longest":
            ratio = max(height / self.size[0], width / self.size[1])
            return max(round(height / ratio), 1), max(round(width / ratio), 1)
        if self.resize is None:
            return height, width
        if self.size[0] != self.size[1]:
            ratio = min(height / self.size[0], width / self.size[1])
            return round(height / ratio), round(width / ratio)
        edge = self.size[0]
        if width <= height:
            return int(edge * height / width), edge
        return edge, int(edge * width / height)

    def _origin(self, length: int, kept: int) -> int:
        """Where the kept part begins; negative where there must be a margin."""
        if length < kept:
            return -math.ceil((kept - length) / 2) if self.rounding == "floor" else -((kept - length) // 2)
        return (length - kept) // 2 if self.rounding == "floor" else round((length - kept) / 2)

    def _cropped(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        top, left = (self._origin(pixels.shape[axis], self.crop[axis]) for axis in range(2))
        height, width = self.crop
        inner = pixels[max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
        return self._framed(inner, top, left)

    def _part(self, source: Image, height: int, width: int) -> NDArray[np.uint8]:
        """The crop of a resized picture that is never made as a whole.

        Pillow filters the two axes one after the other and rounds in between; which one comes first is kept.
        """
        top, bottom, above = self._span(source.height, height, self.crop[0])
        left, right, before = self._span(source.width, width, self.crop[1])
        scale = source.height / height, source.width / width
        edges = [math.floor(left * scale[1]), math.floor(top * scale[0])]
        edges += [min(math.ceil(right * scale[1]), source.width), min(math.ceil(bottom * scale[0]), source.height)]
        part = source.crop((edges[0], edges[1], edges[2], edges[3]))
        rows = (top * scale[0] - edges[1], min(bottom * scale[0] - edges[1], part.height))
        columns = (left * scale[1] - edges[0], min(right * scale[1] - edges[0], part.width))
        if height < source.height and source.height > source.width:
            part = part.resize((part.width, bottom - top), self.resample, box=(0, rows[0], part.width, rows[1]))
            rows = (0, part.height)
        else:
            part = part.resize((right - left, part.height), self.resample, box=(columns[0], 0, columns[1], part.height))
            columns = (0, part.width)
        box = (columns[0], rows[0], columns[1], rows[1])
        pixels = _rgb(part.resize((right - left, bottom - top), self.resample, box=box))
        inner = pixels[above : above + self.crop[0], before : before + self.crop[1]]
        return self._framed(inner, self._origin(height, self.crop[0]), self._origin(width, self.crop[1]))

    def _span(self, length: int, resized: int, kept: int) -> tuple[int, int, int]:
        """Of the resized axis: begin and end of what is computed, and where in it the crop begins."""
        begin = max(self._origin(resized, kept), 0)
        reach = math.ceil(REACH * max(resized / length, 1.0)) + 1
        first, last = max(begin - reach, 0), min(begin + kept + reach, resized)
        return first, last, begin - first

    def _framed(self, inner: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        """`inner`, with a margin where the crop began outside the picture (top or left below 0)."""
        if inner.shape[:2] == self.crop:
            return inner
        result = np.full((*self.crop, 3), self.fill, np.uint8)
        result[max(-top, 0) :, max(-left, 0) :][: inner.shape[0], : inner.shape[1]] = inner
        return result


def _rgb(picture: Image) -> NDArray[np.uint8]:
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def on_white(picture: Image) -> Image:
    """The picture in RGB, what is transparent on white; by strips, so that no second RGBA copy is made."""
    from PIL import Image as images

    if picture.mode == "RGB" and picture.info.get("transparency") is None:
        return picture
    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    result = images.new("RGB", picture.size)
    rows = max((1 << 20) // picture.width, 1)
    for top in range(0, picture.height, rows):
        strip = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        strip.info = picture.info
        strip = strip.convert("RGBA")
        white = images.new("RGBA", strip.size, (255, 255, 255, 255))
        result.paste(images.alpha_composite(white, strip).convert("RGB"), (0, top))
    return result


def _transformers(config: Mapping[str, Any], where: str) -> Preprocessor:
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor")
    if not kind.startswith(KNOWN) or kind.startswith("Siglip2"):
        raise FormatError(f"{where}: {kind[:80]} is not supported; only processors of CLIP and SigLIP are")
    siglip = kind.startswith("Siglip")
    square = not kind.startswith(("CLIP", "ChineseCLIP"))
    resize: Literal["shortest", "exact"] | None = None
    size = (1, 1)
    if _flag(config, "do_resize", True, where):
        value = config.get("size", {"height": 224, "width": 224} if square else {"shortest_edge": 224})
        shortest = isinstance(value, dict) and "shortest_edge" in value and "longest_edge" not in value
        resize = "shortest" if shortest or (type(value) is int and not square) else "exact"
        size = _size(value["shortest_edge"] if shortest else value, f"{where}: size")
    cropped = _flag(config, "do_center_crop", not siglip and not square, where)
    if not cropped and resize != "exact":
        raise FormatError(f"{where}: neither crop nor exact size, so pictures have no fixed size; set crop_size")
    crop = _size(config.get("crop_size", 224), f"{where}: crop_size") if cropped else size
    normal = _flag(config, "do_normalize", True, where)
    plain = (0.5, 0.5, 0.5) if square else OPENAI_MEAN, (0.5, 0.5, 0.5) if square else OPENAI_STD
    return Preprocessor(
        resize=resize,
        size=size,
        crop=crop,
        resample=_resample(config.get("resample", BICUBIC), where),
        scale=_number(config.get("rescale_factor", 1 / 255), f"{where}: rescale_factor")
        if _flag(config, "do_rescale", True, where)
        else 1.0,
        mean=_three(config.get("image_mean", plain[0]), f"{where}: image_mean") if normal else (0.0, 0.0, 0.0),
        std=_three(config.get("image_std", plain[1]), f"{where}: image_std", positive=True) if normal else (1.0,) * 3,
    )


def _open_clip(config: Mapping[str, Any], where: str) -> Preprocessor:
    modes: dict[str, Literal["shortest", "longest", "exact"]]
    modes = {"shortest": "shortest", "longest": "longest", "squash": "exact"}
    mode = config.get("resize_mode") or "shortest"
    filters = {"bicubic": BICUBIC, "bilinear": BILINEAR, "random": BICUBIC}
    filter_name = config.get("interpolation") or "bicubic"
    if not isinstance(mode, str) or mode not in modes:
        raise FormatError(f"{where}: resize_mode {str(mode)[:40]!r}; known are {', '.join(modes)}")
    if not isinstance(filter_name, str) or filter_name not in filters:
        raise FormatError(f"{where}: interpolation {str(filter_name)[:40]!r}; known are {', '.join(filters)}")
    fill = config.get("fill_color", 0)
    if type(fill) is not int or not 0 <= fill <= 255:
        raise FormatError(f"{where}: fill_color must be 0 to 255")
    size = _size(config.get("size", 224), f"{where}: size")
    return Preprocessor(
        resize=modes[mode],
        size=size,
        crop=size,
        rounding="even",
        resample=filters[filter_name],
        white=False,
        fill=fill,
        mean=_three(config.get("mean") or OPENAI_MEAN, f"{where}: mean"),
        std=_three(config.get("std") or OPENAI_STD, f"{where}: std", positive=True),
    )


def _flag(config: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise FormatError(f"{where}: {key} must be true or false")
    return value


def _size(value: Any, where: str) -> tuple[int, int]:
    """Height and width out of 224, [224, 224], or {"height": 224, "width": 224}."""
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    pair = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(pair) == 3:  # open_clip: channels first
        pair = pair[1:]
    if len(pair) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in pair):
        raise FormatError(f"{where} must be a number of pixels, or height and width, 1 to {MAX_SIDE}")
    return pair[0], pair[1]


def _resample(value: Any, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 5:
        raise FormatError(f"{where}: resample must be a number of Pillow's filters, 0 to 5")
    return value


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{where} must be a finite number")
    return float(value)


def _three(value: Any, where: str, positive: bool = False) -> tuple[float, ...]:
    items = tuple(value) if isinstance(value, list | tuple) else (value,) * 3
    numbers = tuple(_number(item, where) for item in items)
    if len(numbers) != 3 or (positive and min(numbers) <= 0):
        raise FormatError(f"{where} must be three numbers{' above 0' if positive else ''}")
    return numbers
