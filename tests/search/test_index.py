"""The index: up to date is the same as from scratch, whatever happened to the folder; what stops it loses little."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fake_clip
import hostile_pictures
from fake_clip import COLOURS, paint
from tercet import fsio
from tercet.errors import FormatError, ModelError, StorageError, TercetError
from tercet.search import Entry, Hit, Index, build, find
from tercet.search.scan import scan
from tercet.search.sheet import sheet

CLIP = fake_clip.clip()


def contents(place: Path) -> tuple[list[str], np.ndarray, dict[str, str]]:
    index = Index.open(place)
    refused = {path: entry.refused for path, entry in index.entries.items() if entry.refused}
    return *index.matrix(), refused


def same(one: Path, other: Path) -> None:
    first, second = contents(one), contents(other)
    assert first[0] == second[0]
    np.testing.assert_array_equal(first[1], second[1])
    assert first[2] == second[2]
    for query in ("a red thing", "blue"):
        assert find(Index.open(one), CLIP, query, 5) == find(Index.open(other), CLIP, query, 5)


STEP = st.tuples(
    st.sampled_from(["paint", "spoil", "delete", "touch", "rename", "update"]),
    st.integers(0, 5),
    st.sampled_from(sorted(COLOURS)),
    st.integers(0, 3),
)


def act(folder: Path, kind: str, number: int, colour: str, seed: int, clock: list[int]) -> None:
    path = folder / ("sub" if number % 2 else ".") / f"{number}.png"
    clock[0] += 1
    if kind == "paint":
        paint(path, colour, seed)
    elif kind == "spoil":
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"no picture" * (seed + 1))
    elif path.exists() and kind == "delete":
        path.unlink()
    elif path.exists() and kind == "rename":
        path.rename(folder / f"renamed-{number}.png")
    if path.exists():
        os.utime(path, ns=(clock[0] * 10**9, clock[0] * 10**9))


@given(steps=st.lists(STEP, max_size=14))
@settings(max_examples=25, deadline=None)
def test_kept_up_to_date_is_made_from_scratch(steps: list[tuple[str, int, str, int]]) -> None:
    clock = [10**6]
    with tempfile.TemporaryDirectory() as name:
        folder, kept, fresh = Path(name, "pictures"), Path(name, "kept"), Path(name, "fresh")
        folder.mkdir()
        for kind, *rest in steps:
            if kind == "update":
                build(folder, CLIP, kept, batch=2, workers=2)
            else:
                act(folder, kind, *rest, clock)
        build(folder, CLIP, kept, batch=3, workers=1)
        build(folder, CLIP, fresh, batch=2, workers=2)
        same(kept, fresh)


def gallery(folder: Path) -> Path:
    for number, colour in enumerate(COLOURS):
        for seed in range(3):
            paint(folder / colour / f"{number}-{seed}.png", colour, seed)
    return folder


def test_words_find_their_pictures(tmp_path: Path) -> None:
    report = build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    assert (report.added, report.pictures, report.refused) == (18, 18, [])
    index = Index.open(tmp_path / "index")
    for colour in COLOURS:
        hits = find(index, CLIP, f"a photo of a {colour} thing", 3)
        assert {Path(hit.path).parent.name for hit in hits} == {colour}
        assert hits == sorted(hits, key=lambda hit: -hit.score)
        assert hits[0].score > 0.95
    assert len(find(index, CLIP, "red", 100)) == 18
    again = find(index, CLIP, tmp_path / "in" / "blue" / "2-1.png", 1)
    assert again[0].path.startswith("blue/")
    assert again[0].score == pytest.approx(1, abs=1e-3)


def test_the_search_is_exact(tmp_path: Path) -> None:
    build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    index = Index.open(tmp_path / "index")
    paths, matrix = index.matrix()
    query = CLIP.texts(["red green"])[0]
    scores = matrix @ (query / np.linalg.norm(query))
    best = sorted(zip(-scores, paths, strict=True))[:7]
    made = find(index, CLIP, "red green", 7)
    np.testing.assert_allclose([hit.score for hit in made], [-score for score, _ in best], atol=1e-6)
    assert {hit.path for hit in made} == {path for _, path in best}


def test_nothing_is_embedded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gallery(tmp_path / "in")
    build(folder, CLIP, tmp_path / "index")
    for path in folder.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    paint(folder / "new.png", "red", 9)
    paint(folder / "red" / "0-0.png", "blue", 9)
    (folder / "blue" / "2-0.png").unlink()
    seen: list[int] = []
    encode = fake_clip.Colours.encode_pixels
    monkeypatch.setattr(
        fake_clip.Colours, "encode_pixels", lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels)
    )
    report = build(folder, CLIP, tmp_path / "index")
    assert sum(seen) == 2
    assert (report.added, report.changed, report.removed, report.kept) == (1, 1, 1, 16)


def test_an_interrupted_index_goes_on_where_it_was(tmp_path: Path) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"

    def stop(_what: str, done: int, _total: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(folder, CLIP, place, batch=4, progress=stop)
    assert len(Index.open(place).vectors) == 8
    report = build(folder, CLIP, place)
    assert (report.added, report.kept) == (10, 8)
    build(folder, CLIP, tmp_path / "fresh")
    same(place, tmp_path / "fresh")


def test_a_full_disk_leaves_an_index_that_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    monkeypatch.setattr("tercet.search.indexing.CHECKPOINT", 4)
    write, count = fsio.atomic_file, [0]

    def full(path: Any, data: Any) -> None:
        count[0] += 1
        if count[0] > 3:
            raise StorageError(f"cannot write {path}: No space left on device; free some space")
        write(path, data)

    monkeypatch.setattr(fsio, "atomic_file", full)
    with pytest.raises(StorageError, match="No space"):
        build(folder, CLIP, place, batch=2)
    assert len(Index.open(place).vectors) == 8
    monkeypatch.setattr(fsio, "atomic_file", write)
    build(folder, CLIP, place)
    build(folder, CLIP, tmp_path / "fresh")
    same(place, tmp_path / "fresh")


def test_many_segments_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    monkeypatch.setattr("tercet.search.indexing.CHECKPOINT", 2)
    (folder / "bad.png").write_bytes(b"no")
    build(folder, CLIP, place, batch=2)
    assert len(list(place.glob("segment-*"))) == 1
    build(folder, CLIP, tmp_path / "fresh", batch=32)
    same(place, tmp_path / "fresh")
    old = shutil.copytree(tmp_path / "fresh", tmp_path / "left-over")
    Index.open(place).compact()
    (old / "segment-00000001.safetensors").rename(place / "segment-00000000.safetensors")  # a crash before its removal
    same(place, tmp_path / "fresh")


def test_entries_that_are_too_many_for_a_segment_are_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    (folder / "bad.png").write_bytes(b"no")
    monkeypatch.setattr("tercet.search.store.MAX_ENTRIES", 700)
    monkeypatch.setattr("tercet.search.indexing.CHECKPOINT", 6)
    monkeypatch.setattr("tercet.search.indexing.SEGMENTS", 99)
    build(folder, CLIP, place, batch=2)
    written = sorted(place.glob("segment-*"))
    assert len(written) > 6
    wanted = contents(place)
    assert len(wanted[0]) == 18

    real, left = fsio.atomic_file, [3]

    def full(path: Any, data: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StorageError(f"cannot write {path}: No space left on device; free some space")
        real(path, data)

    monkeypatch.setattr(fsio, "atomic_file", full)
    with pytest.raises(StorageError):
        Index.open(place).compact()
    assert len(list(place.glob("segment-*"))) == len(written) + 3
    np.testing.assert_equal(contents(place), wanted)
    monkeypatch.setattr(fsio, "atomic_file", real)
    Index.open(place).compact()
    assert not any(path.exists() for path in written)
    np.testing.assert_equal(contents(place), wanted)


def test_nothing_is_removed_before_the_new_segment_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    build(folder, CLIP, place)
    paint(folder / "new.png", "red")
    build(folder, CLIP, place)
    index, real = Index.open(place), fsio.atomic_file
    monkeypatch.setattr(fsio, "atomic_file", lambda path, data: real(path, b"".join(map(bytes, data))[:-1]))
    with pytest.raises(FormatError):
        index.compact()
    assert len(Index.open(place).vectors) == 19


def test_another_model_or_folder_is_refused(tmp_path: Path) -> None:
    build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    other = fake_clip.clip("other")
    with pytest.raises(ModelError, match="another model"):
        build(tmp_path / "in", other, tmp_path / "index")
    with pytest.raises(ModelError, match="another model"):
        find(Index.open(tmp_path / "index"), other, "red")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ModelError, match="another folder"):
        build(tmp_path / "elsewhere", CLIP, tmp_path / "index")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(StorageError, match="something else"):
        build(tmp_path / "in", CLIP, tmp_path / "mine")


def test_a_second_writer_waits_for_nobody(tmp_path: Path) -> None:
    folder = gallery(tmp_path / "in")

    def again(_what: str, _done: int, _total: int) -> None:
        with pytest.raises(StorageError, match="another tercet index"):
            build(folder, CLIP, tmp_path / "index")

    assert build(folder, CLIP, tmp_path / "index", progress=again).added == 18


def test_an_index_inside_its_folder_is_no_picture_of_it(tmp_path: Path) -> None:
    folder = gallery(tmp_path / "in")
    place = folder / "index"
    build(folder, CLIP, place)
    paint(place / "hidden.png", "red")
    assert build(folder, CLIP, place).added == 0


def test_hostile_files_are_listed(tmp_path: Path) -> None:
    folder = gallery(tmp_path / "in")
    names = hostile_pictures.write(folder / "hostile")
    os.mkfifo(folder / "pipe.png")
    (folder / "away.png").symlink_to("/nowhere/at/all.png")
    (folder / "loop").symlink_to(folder)
    report = build(folder, CLIP, tmp_path / "index")
    assert report.pictures == 18
    assert [path for path, _ in report.refused] == [*(f"hostile/{name}" for name in names), "pipe.png"]
    assert all(reason and "\n" not in reason and str(folder) not in reason for _, reason in report.refused)
    again = build(folder, CLIP, tmp_path / "index")
    assert again.kept == 18 + len(names)  # the pipe was not read, so nothing is known of it
    assert again.refused == report.refused


def failing(monkeypatch: pytest.MonkeyPatch, function: str, name: str, error: OSError | MemoryError) -> None:
    """`function`, of a module, fails for the path that ends with `name`; MonkeyPatch.undo mends it."""
    module, _, attribute = function.rpartition(".")
    real = getattr(importlib.import_module(module), attribute)

    def partly(path: Any, *rest: Any, **options: Any) -> Any:
        if str(path).endswith(name):
            if isinstance(error, OSError):
                error.filename = str(path)
            raise error
        return real(path, *rest, **options)

    monkeypatch.setattr(function, partly)


def test_without_pillow_nothing_is_refused_and_nothing_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = gallery(tmp_path / "in")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(TercetError, match="pip install"):
        build(folder, CLIP, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    with pytest.raises(TercetError, match="pip install"):
        next(CLIP.pictures(sorted(folder.rglob("*.png")), lambda path: path))


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error"), MemoryError()]
)
def test_a_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | MemoryError
) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    build(folder, CLIP, place)
    paint(folder / "red" / "0-1.png", "blue", 8, (30, 50))
    paint(folder / "new.png", "red", 9)
    for name in ("0-1.png", "new.png"):
        failing(monkeypatch, "os.open", name, error)
    report = build(folder, CLIP, place)
    assert [path for path, _ in report.refused] == ["new.png", "red/0-1.png"]
    assert report.pictures == 17  # what the changed one was is no longer there
    monkeypatch.undo()
    report = build(folder, CLIP, place)
    assert (report.added, report.kept, report.pictures, report.refused) == (2, 17, 19, [])
    build(folder, CLIP, tmp_path / "fresh")
    same(place, tmp_path / "fresh")


def test_memory_that_is_short_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"

    def short(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", short)
    report = build(folder, CLIP, place)
    assert (report.pictures, len(report.refused)) == (0, 18)
    monkeypatch.undo()
    assert build(folder, CLIP, place).added == 18


def test_what_lies_in_a_folder_that_cannot_be_listed_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    paint(folder / "red" / "deeper" / "a.png", "red")
    (folder / "red" / "bad.png").write_bytes(b"no")
    first = build(folder, CLIP, place)
    (folder / "blue" / "2-0.png").unlink()
    failing(monkeypatch, "os.scandir", "red", PermissionError(errno.EACCES, "Permission denied"))
    report = build(folder, CLIP, place)
    assert (report.removed, report.kept, report.pictures) == (1, 19, 18)
    assert report.refused == [("red", "cannot be read: Permission denied"), *first.refused]
    assert scan(folder).unread == {"red": "cannot be read: Permission denied"}
    monkeypatch.undo()
    shutil.rmtree(folder / "red" / "deeper")
    report = build(folder, CLIP, place)
    assert (report.removed, report.kept, report.refused) == (1, 18, first.refused)


def test_a_file_that_cannot_be_looked_at_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    build(folder, CLIP, place)
    failing(monkeypatch, "os.stat", "0-0.png", OSError(errno.EIO, "I/O error"))
    report = build(folder, CLIP, place)
    assert (report.removed, report.kept) == (0, 18)
    assert report.refused == [("red/0-0.png", "cannot be read: I/O error")]


def test_a_folder_that_cannot_be_listed_does_not_empty_its_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = gallery(tmp_path / "in"), tmp_path / "index"
    build(folder, CLIP, place)
    failing(monkeypatch, "os.scandir", "/in", PermissionError(errno.EACCES, "Permission denied"))
    with pytest.raises(FormatError, match=r"cannot be listed: Permission denied; [^\n]+$"):
        build(folder, CLIP, place)
    assert len(Index.open(place).vectors) == 18


@pytest.mark.parametrize("where", [8, 40, 200, -5])
def test_a_damaged_segment_is_refused_or_only_wrong(tmp_path: Path, where: int) -> None:
    build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    path = next((tmp_path / "index").glob("segment-*"))
    for content in (path.read_bytes()[:where], path.read_bytes() + b"x", b""):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            Index.open(tmp_path / "index")


ABOUT = {"format": "tercet-index", "version": 1, "model": "m", "fingerprint": "f", "dim": 13, "folder": "x"}


@pytest.mark.parametrize(
    "about",
    ["", "[]", "{", *(json.dumps({**ABOUT, **change}) for change in ({"dim": -1}, {"version": 1}, {"model": None}))],
)
def test_a_damaged_description_is_refused(tmp_path: Path, about: str) -> None:
    build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    (tmp_path / "index" / "index.json").write_text(about)
    with pytest.raises(FormatError):
        Index.open(tmp_path / "index")


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "a/../../b.png", "a\0b.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    index = Index.create(tmp_path / "index", model="m", fingerprint="f", dim=1, folder=str(tmp_path))
    index.add([Entry(path, 1, 1, "0" * 64)], {path: np.ones(1, np.float32)}, ())
    with pytest.raises(FormatError, match="entries of an unknown form"):
        Index.open(tmp_path / "index")


def test_a_changed_entry_is_damage_and_no_picture_that_is_never_indexed(tmp_path: Path) -> None:
    build(gallery(tmp_path / "in"), CLIP, tmp_path / "index")
    (segment,) = (tmp_path / "index").glob("segment-*")
    content = segment.read_bytes()
    assert b'"refused": null' in content
    segment.write_bytes(content.replace(b'"refused": null', b'"refused": "no"', 1))
    with pytest.raises(FormatError, match="its checksum differs"):
        build(tmp_path / "in", CLIP, tmp_path / "index")


def test_the_contact_sheet_shows_only_what_was_indexed(tmp_path: Path) -> None:
    paint(tmp_path / "private.png", "red")
    hits = [Hit("private.png", 0.5)]
    shown = hashlib.sha256((tmp_path / "private.png").read_bytes()).hexdigest()
    assert "data:image/jpeg" in sheet("red", hits, tmp_path, {"private.png": shown})
    for digests in ({}, {"private.png": "0" * 64}):
        page = sheet("red", hits, tmp_path, digests)
        assert "data:image/jpeg" not in page
        assert "changed since it was indexed" in page


def test_pictures_of_formats_that_are_not_read_are_counted(tmp_path: Path) -> None:
    folder = gallery(tmp_path / "in")
    for name in ("a.heic", "b.HEIC", "c.avif", "d.txt", ".e.heic"):
        (folder / name).write_bytes(b"x")
    paint(folder / "f.png", "red")
    (folder / "f.png").rename(folder / "f.jfif")
    report = build(folder, CLIP, tmp_path / "index")
    assert report.left_out == {".heic": 2, ".avif": 1}
    assert "f.jfif" in Index.open(tmp_path / "index").entries


def test_the_contact_sheet_escapes_names_and_shows_what_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    paint(folder / "<img src=x onerror=alert(1)>.png", "red")
    paint(folder / "b'\"&.png", "red", 1)
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes((folder / "b'\"&.png").read_bytes())
    build(folder, CLIP, tmp_path / "index")
    hits = find(Index.open(tmp_path / "index"), CLIP, "red", 5)
    (folder / "b'\"&.png").unlink()
    digests = {path: entry.sha256 for path, entry in Index.open(tmp_path / "index").entries.items()}
    page = sheet("<script>alert(2)</script>", hits, folder, digests)
    page.encode()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "No such file" in page
    assert page.count("<figure>") == 3
