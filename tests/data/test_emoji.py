"""Emoji out of small packages: whose drawings, which names, which split."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from package_files import tar
from tercet.data import packages
from tercet.data.pictures import Split, emoji
from tercet.errors import FormatError, ModelError

COUNT = 60
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "unseen")
ARTISTS = {"twemoji": 1, "fluent": 2, "noto": 3}  # what their drawings have in the blue channel


def drawing(code: int, artist: int, side: int, kind: str) -> bytes:
    made = io.BytesIO()
    Image.new("RGBA", (side, side), (code, 100, artist, 255)).save(made, kind, lossless=True)
    return made.getvalue()


def table() -> bytes:
    rows = [
        {"name": f"SMALL THING {n}", "short_names": [f"thing_{n}"], "image": f"1f{n:03x}.png"} for n in range(COUNT)
    ]
    return json.dumps([*rows, {"name": "SMALL THING 7", "short_names": ["other"], "image": "2000.png"}]).encode()


def package(vendor: emoji.Vendor, artist: int) -> bytes:
    side, kind = (256, "WEBP") if vendor.suffix == ".webp" else (64, "PNG")
    members = [("package/README.md", b"text"), ("package/img/apple/64/1f000.png", b"never looked at")]
    for code in range(COUNT - 1 if vendor.suffix == ".webp" else COUNT):  # one is not drawn by all
        members.append((f"package/{vendor.folder}1f{code:03x}{vendor.suffix}", drawing(code, artist, side, kind)))
    members.append((f"package/{vendor.folder}1f000-1f3fb{vendor.suffix}", b"a skin tone, not looked at"))
    if vendor.suffix == ".png":
        members.append(("package/emoji.json", table()))
    return gzip.compress(tar(members))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """npm is replaced; gives the packages it was asked for."""
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    made = {vendor.package: package(vendor, ARTISTS[name]) for name, vendor in emoji.VENDORS.items()}
    called: list[str] = []

    def npm(command: list[str], *, cwd: str, **_: object) -> object:
        name, version = command[-1].rsplit("@", 1)
        called.append(name)
        (Path(cwd) / f"{name.lstrip('@').replace('/', '-')}-{version}.tgz").write_bytes(made[name])
        return type("Done", (), {"returncode": 0, "stderr": ""})

    vendors = {
        name: vendor._replace(sha256=hashlib.sha256(made[vendor.package]).hexdigest())
        for name, vendor in emoji.VENDORS.items()
    }
    monkeypatch.setattr(emoji, "VENDORS", vendors)
    monkeypatch.setattr(packages.subprocess, "run", npm)
    return called


def test_every_drawing_is_in_one_split_and_test_names_are_known_from_another_drawing(asked: list[str]) -> None:
    splits = {split: emoji.pictures(split) for split in SPLITS}
    shown = {
        split: {(int(p[0, 0, 0]), int(p[0, 0, 2])) for p in made.pixels} for split, made in splits.items()
    }  # (emoji, artist)
    both = {(code, artist) for code in range(COUNT) for artist in (1, 2)} - {(COUNT - 1, 2)}
    assert shown["train"] | shown["validation"] | shown["test"] == both
    assert sum(len(shown[split]) for split in SPLITS) == len(both) + COUNT
    assert shown["unseen"] == {(code, 3) for code in range(COUNT)}
    known = {code for code, _ in shown["train"]}
    assert known == set(range(COUNT))
    assert {artist for _, artist in shown["test"]} == {1, 2}
    assert len(shown["validation"]) > 2
    assert sorted(asked) == ["@lobehub/fluent-emoji-3d", "emoji-datasource-google", "emoji-datasource-twitter"]


@pytest.mark.usefixtures("asked")
def test_names_belong_to_their_drawings_and_groups_to_their_names() -> None:
    meaning = {}
    for split in SPLITS:
        made = emoji.pictures(split)
        assert made.pixels.shape[1:] == (64, 64, 3)
        for picture, captions, group in zip(made.pixels, made.captions, made.groups, strict=True):
            code = int(picture[32, 32, 0])
            assert captions[0] == f"an emoji of small thing {code}"
            assert f"thing {code} emoji" in captions
            assert meaning.setdefault(int(group), code) == code
    assert len(meaning) == COUNT


def test_unseen_drawings_need_no_other_package(asked: list[str]) -> None:
    emoji.pictures("unseen")
    assert asked == ["emoji-datasource-google"]


def test_transparent_parts_are_white() -> None:
    made = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(made, "PNG")
    assert np.array_equal(emoji._decoded(made.getvalue(), "x"), np.full((64, 64, 3), 255))


def test_hostile_drawings_end_in_one_line() -> None:
    good = drawing(1, 1, 64, "PNG")
    for content in (b"", b"GIF89a" + bytes(50), good[:60], good[:30] + bytes(40), drawing(1, 1, 513, "PNG")):
        with pytest.raises(FormatError) as error:
            emoji._decoded(content, "package: 1f600.png")
        assert str(error.value).startswith("package: 1f600.png: ")
        assert "\n" not in str(error.value)


def test_a_package_without_drawings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setattr(emoji, "npm_members", lambda *_: iter([("emoji.json", table())]))
    with pytest.raises(FormatError, match=r"emoji-datasource-google: no \.png in img/google/64/"):
        emoji.pictures("unseen")


def test_without_npm_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ModelError, match=r"emoji-datasource-twitter 16\.0\.0 from npm: there is no npm here"):
        emoji.pictures("train")


def test_only_free_drawings_are_asked_for() -> None:
    assert {vendor.package for vendor in emoji.VENDORS.values()} == {
        "emoji-datasource-twitter",
        "emoji-datasource-google",
        "@lobehub/fluent-emoji-3d",
    }
