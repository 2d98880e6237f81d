"""Sets of pictures: what each source gives, and that what is damaged or hostile is refused in one line."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fake_clip
from fake_clip import paint
from hostile_pictures import encoded, picture
from tercet.data.pictures import Pictures
from tercet.data.sets import NAMED, PictureSet, open_set
from tercet.data.sets.named import _texts
from tercet.data.sets.sample import filled
from tercet.errors import FormatError
from tercet.runtime.pictures.files import opened


def told(pictures: PictureSet) -> list[tuple[str, tuple[int, ...], tuple[str, ...]]]:
    first = [(sample.name, sample.labels, sample.captions) for sample in pictures.samples()]
    assert first == [(sample.name, sample.labels, sample.captions) for sample in pictures.samples()]  # read again
    return first


def tar(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as made:
        for other in others:
            made.addfile(other)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return path


PNG = encoded(picture(), "PNG")


def array(values: object) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def test_class_folders(tmp_path: Path) -> None:
    for name in ("red_fox", "dog"):
        for number in range(2):
            paint(tmp_path / "set" / name / "deep" / f"{number}.png", "red")
    (tmp_path / "set" / "dog" / "notes.txt").write_text("no picture")
    made = open_set(tmp_path / "set")
    assert (made.task, made.metric, made.classes) == ("classification", "top1", ("dog", "red fox"))
    assert told(made) == [
        ("dog/deep/0.png", (0,), ()),
        ("dog/deep/1.png", (0,), ()),
        ("red_fox/deep/0.png", (1,), ()),
        ("red_fox/deep/1.png", (1,), ()),
    ]
    (tmp_path / "set" / "classnames.txt").write_text("a dog\na fox\n")
    assert open_set(tmp_path / "set").classes == ("a dog", "a fox")
    (tmp_path / "set" / "classnames.txt").write_text("a dog\n")
    with pytest.raises(FormatError, match="2 class folders, but"):
        open_set(tmp_path / "set")


def test_splits_and_templates(tmp_path: Path) -> None:
    for split, classes, count in (("train", ("fox", "cat"), 3), ("test", ("ant", "cat", "fox"), 1)):
        for name in classes:
            for number in range(count):
                paint(tmp_path / split / name / f"{number}.png", "red")
    prompts = tmp_path / "zeroshot_classification_templates.txt"
    prompts.write_text("one {c}\n\ntwo {}\n")
    made = open_set(tmp_path)
    assert made.templates == ("one {c}", "two {}")
    assert made.classes == ("ant", "cat", "fox")
    assert [labels for _, labels, _ in told(made)] == [(0,), (1,), (2,)]
    assert made.training is not None
    learnt = [(sample.name.split("/")[0], made.classes[sample.labels[0]]) for sample in made.training()]
    assert learnt == [("cat", "cat")] * 3 + [("fox", "fox")] * 3
    prompts.write_text("a {c}\na photo\n")
    with pytest.raises(FormatError, match="'a photo' has no"):
        open_set(tmp_path)


def test_training_folders_of_other_classes_are_refused(tmp_path: Path) -> None:
    for split, classes in (("train", ("ant", "bee", "cat", "dog")), ("test", ("cat", "dog", "fox"))):
        for name in classes:
            paint(tmp_path / split / name / "1.png", "red")
    made = open_set(tmp_path)  # good without a probe
    assert made.training is not None
    with pytest.raises(FormatError, match="'ant' and 1 more: the test pictures have no such class") as caught:
        made.training()
    assert "\n" not in str(caught.value)
    tar(tmp_path / "train" / "0.tar", {"1.png": PNG, "1.cls": b"0"})
    with pytest.raises(FormatError, match="one is tars, the other folders"):
        made.training()


def test_folders_of_numbers_are_classes_in_the_order_of_numbers(tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / str(number) / "1.png", "red")
    (tmp_path / "classnames.txt").write_text("\n".join(f"name {number}" for number in range(12)))
    made = open_set(tmp_path)
    assert [(name, made.classes[label]) for name, (label,), _ in told(made)] == [
        (f"{number}/1.png", f"name {number}") for number in range(12)
    ]


def test_names_that_are_the_folders_go_by_name(tmp_path: Path) -> None:
    for name in ("alpine_lily", "rose", "daisy"):
        paint(tmp_path / name / "1.png", "red")
    (tmp_path / "classnames.txt").write_text("Rose\nalpine lily\ndaisy\n")
    made = open_set(tmp_path)
    assert [(name, made.classes[label]) for name, (label,), _ in told(made)] == [
        ("alpine_lily/1.png", "alpine lily"),
        ("daisy/1.png", "daisy"),
        ("rose/1.png", "Rose"),
    ]
    (tmp_path / "classnames.txt").write_text("tulip\na lily\na daisy\n")
    assert open_set(tmp_path).classes == ("tulip", "a lily", "a daisy")


@pytest.mark.parametrize("name", ["imagenet-a", "path"])
def test_numbers_of_wordnet_are_no_names(place: Path, name: str) -> None:
    folder = place / "datasets" / name
    for wordnet in ("n01440764", "n01443537"):
        paint(folder / wordnet / "1.png", "red")
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    source = folder if name == "path" else name
    with pytest.raises(FormatError, match="put a name a line, in the order of the folders, into classnames"):
        open_set(source)
    (folder / "classnames.txt").write_text("tench\ngoldfish\n")
    assert open_set(source).classes == ("tench", "goldfish")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'image,caption\n1.jpg,"a dog, red"\n2.jpg,a cat\n1.jpg,the dog\n'),
        ("t.tsv", "filepath\ttitle\n1.jpg\ta dog, red\n2.jpg\ta cat\n1.jpg\tthe dog\n"),
        (
            "t.jsonl",
            '{"image": "1.jpg", "captions": ["a dog, red", "the dog"]}\n\n{"image": "2.jpg", "caption": "a cat"}\n',
        ),
    ],
)
def test_tables_of_captions(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    made = open_set(tmp_path / name)
    assert (made.task, made.metric, made.classes) == ("retrieval", "recall", ())
    assert told(made) == [("1.jpg", (), ("a dog, red", "the dog")), ("2.jpg", (), ("a cat",))]
    assert next(made.samples()).picture == tmp_path / "1.jpg"


def test_a_table_of_classes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,label\na.jpg,10\nb.jpg,9\nc.jpg,dog\nb.jpg,dog\n")
    made = open_set(tmp_path / "t.csv")
    assert made.classes == ("9", "10", "dog")
    assert told(made) == [("a.jpg", (1,), ()), ("b.jpg", (0, 2), ()), ("c.jpg", (2,), ())]


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    for name, text in (("t.csv", "image,label\n1.jpg,dog\n"), ("t.jsonl", '{"image": "1.jpg", "label": "dog"}\n')):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert told(open_set(tmp_path / name)) == [("1.jpg", (0,), ())]
    paint(tmp_path / "set" / "a" / "1.png", "red")
    (tmp_path / "set" / "classnames.txt").write_text("dog\n", encoding="utf-8-sig")
    assert open_set(tmp_path / "set").classes == ("dog",)


def test_other_braces_of_a_template_are_text() -> None:
    assert filled("a {c}, {0} {label} {", "{} {c}") == "a {} {c}, {0} {label} {"
    assert filled("{}: {}", "dog") == "dog: dog"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "no rows"),
        ("t.csv", b"image,caption\n,x\n", "line 2: no picture"),
        ("t.csv", b"image,caption\n1.jpg,\n", "caption is empty"),
        ("t.csv", b"image,caption\n1.jpg,a,b\n", "more cells"),
        ("t.csv", b"image,size\n1.jpg,3\n", "neither caption nor label"),
        ("t.csv", b"image,caption\n\xff\xfe,x\n", "UTF-8"),
        ("t.csv", b'image,caption\n1.jpg,"' + b"x" * 200_000 + b'"\n', "cannot be read"),
        ("t.jsonl", b"[1]\n", "line 1: no JSON object"),
        ("t.jsonl", b"{\n", "line 1"),
        ("t.jsonl", b"[" * 100_000, "line 1"),
        ("t.jsonl", b'{"image": "1.jpg", "captions": [1]}\n', "no text"),
        ("t.jsonl", b'{"image": "1.jpg", "caption": "x"}\n{"image": "2.jpg", "label": 1}\n', "two tables"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        open_set(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_tars_of_classes(tmp_path: Path) -> None:
    link = tarfile.TarInfo("away.jpg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder = tarfile.TarInfo("sub")
    folder.type = tarfile.DIRTYPE
    one = {"sub/1.png": PNG, "sub/1.cls": b"1\n", "sub/2.cls": b"0", "sub/2.png": PNG, "sub/2.other.txt": b"x"}
    tar(tmp_path / "test" / "0.tar", one, link, folder)
    tar(tmp_path / "test" / "10.tar", {"last.png": PNG, "last.cls": b"0"})
    tar(tmp_path / "test" / "9.tar", {"../../up.png": PNG, "../../up.cls": b"1"})
    (tmp_path / "classnames.txt").write_text("dog\ncat\n")
    made = open_set(tmp_path)
    assert made.classes == ("dog", "cat")
    assert told(made) == [("sub/1", (1,), ()), ("sub/2", (0,), ()), ("../../up", (1,), ()), ("last", (0,), ())]
    first = next(made.samples())
    with opened(first.picture, first.name) as image:
        assert image.tobytes() == picture().tobytes()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0.tar", "10.tar", "9.tar", "classnames.txt", "test"]


def test_tars_of_captions_and_of_several_classes(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"1.png": PNG, "1.txt": b"a dog\n the dog \n", "2.png": PNG, "2.json": b'{"caption": "x"}'})
    made = open_set(tmp_path / "a.tar")
    assert made.task == "retrieval"
    assert told(made) == [("1", (), ("a dog", "the dog")), ("2", (), ("x",))]
    several = {"1.png": PNG, "1.npy": array(np.array([0, 1, 1])), "2.png": PNG, "2.npy": array(np.int64(2))}
    tar(tmp_path / "s" / "b.tar", several)
    (tmp_path / "s" / "classnames.txt").write_text("a\nb\nc\n")
    assert told(open_set(tmp_path / "s")) == [("1", (1, 2), ()), ("2", (2,), ())]


def header_of(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"1.png": PNG, "1.cls": b"x"}, "cannot be read"),
        ({"1.png": PNG, "1.cls": b"-1"}, "no class"),
        ({"1.png": PNG, "1.cls": b"9" * 5000}, "label"),
        ({"1.png": PNG}, "neither"),
        ({"1.png": PNG, "1.txt": b"\xff"}, "cannot be read"),
        ({"1.png": PNG, "1.json": b"[" * 100_000}, "cannot be read"),
        ({"1.png": PNG, "1.npy": array(np.array([{}], object))}, "no vector"),
        ({"1.png": PNG, "1.npy": header_of("(1000000000000,)")}, "cannot be read"),
        ({"1.png": PNG, "1.npy": b"\x93NUMPY"}, "cannot be read"),
        ({"1.png": PNG, "1.txt": bytes(2 << 20)}, "at most"),
    ],
)
def test_a_damaged_sample_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    path = tar(tmp_path / "a.tar", files)
    with pytest.raises(FormatError, match=message) as caught:
        list(open_set(path).samples())
    assert "\n" not in str(caught.value)


def forty_pictures(tmp_path: Path) -> tuple[Path, np.ndarray, bytes]:
    """A tar of forty times one picture, its pixels, its file."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    large = encoded(Image.fromarray(noise), "BMP")
    files = {f"{n}.{kind}": large if kind == "bmp" else b"x" for n in range(40) for kind in ("bmp", "txt")}
    return tar(tmp_path / "a.tar", files), noise, large


def test_a_list_of_a_tar_s_samples_holds_no_pictures(tmp_path: Path) -> None:
    path, noise, large = forty_pictures(tmp_path)
    tracemalloc.start()
    samples = list(open_set(path).samples())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(samples) == 40
    assert peak < 2 * len(large)
    with opened(samples[7].picture) as image:
        np.testing.assert_array_equal(np.asarray(image), noise)
    path.write_bytes(path.read_bytes()[:3_000_000])
    with pytest.raises(FormatError), opened(samples[39].picture):
        pass


def test_evaluation_reads_ahead_no_more_of_a_tar_than_it_works_on(tmp_path: Path) -> None:
    path, _, large = forty_pictures(tmp_path)
    tracemalloc.start()
    made = list(fake_clip.clip().pictures(open_set(path).samples(), lambda sample: sample.picture, workers=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(each.sources) for each in made) == 40
    assert peak < 20 * len(large)


def header_with(size: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar's header that claims this size: its twelve bytes as they are."""
    info = tarfile.TarInfo("1.png")
    info.type = kind
    content = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    content[124:136] = size
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize(
    "size", [(-512).to_bytes(12, "big", signed=True), b"77777777777\0", b"\x80" + (1 << 62).to_bytes(11, "big")]
)
def test_a_tar_s_sizes_are_not_trusted(tmp_path: Path, kind: bytes, size: bytes) -> None:
    """-512 leads from the end of the header to its beginning."""
    (tmp_path / "a.tar").write_bytes(header_with(size, kind) + bytes(2048))
    tracemalloc.start()
    with pytest.raises(FormatError) as caught:
        list(open_set(tmp_path / "a.tar").samples())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert "\n" not in str(caught.value)


def test_a_damaged_tar_is_refused(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", {f"{n}.{kind}": PNG for n in range(3) for kind in ("png", "txt")}).read_bytes()
    for content in (whole[:700], whole[:2000], b"no tar" * 300, b"\xff" * 600 + whole):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.tar"):
            list(open_set(tmp_path / "a.tar").samples())


def test_there_are_41_names() -> None:
    assert len(NAMED) == 41
    assert sum(named.task == "retrieval" for named in NAMED.values()) == 3
    assert {named.metric for named in NAMED.values()} == {"top1", "mean_per_class", "mean_average_precision", "recall"}
    assert len({named.download for named in NAMED.values()}) == 41


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERCET_DATASETS", str(tmp_path / "datasets"))
    package = tmp_path / "site" / "clip_benchmark"
    (package / "datasets").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    _texts.cache_clear()
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path


def test_a_name_says_what_to_download_and_where_to_put_it(place: Path) -> None:
    with pytest.raises(FormatError) as caught:
        open_set("mnist")
    assert "hf download clip-benchmark/wds_mnist --repo-type dataset" in str(caught.value)
    assert str(place / "datasets" / "mnist") in str(caught.value)
    with pytest.raises(FormatError, match="names: fashion-mnist, emoji, scenes, mscoco_captions"):
        open_set("no such set")


def test_names_and_prompts_come_from_the_set_or_the_package_unimported(place: Path) -> None:
    test = place / "datasets" / "mnist" / "test"
    for digit in "01":
        paint(test / digit / "1.png", "red")
    with pytest.raises(FormatError, match="pip install --no-deps clip-benchmark"):
        open_set("mnist")
    files = place / "site" / "clip_benchmark" / "datasets"
    (files / "en_classnames.json").write_text(json.dumps({"mnist": ["zero", "one"]}))
    (files / "en_zeroshot_classification_templates.json").write_text(json.dumps({"mnist": ["the number {c}"]}))
    made = open_set("mnist")
    assert (made.name, made.classes, made.templates) == ("mnist", ("zero", "one"), ("the number {c}",))
    assert [labels for _, labels, _ in told(made)] == [(0,), (1,)]
    (place / "datasets" / "mnist" / "classnames.txt").write_text("0\n1\n")
    assert open_set("mnist").classes == ("0", "1")
    _texts.cache_clear()
    (files / "en_classnames.json").write_text(json.dumps({"mnist": ["zero", "one", "two"]}))
    (place / "datasets" / "mnist" / "classnames.txt").unlink()
    with pytest.raises(FormatError, match="2 class folders, but there are names for 3"):
        open_set("mnist")


def test_named_tars(place: Path) -> None:
    tar(place / "datasets" / "flowers" / "test" / "0.tar", {"1.png": PNG, "1.cls": b"0"})
    (place / "datasets" / "flowers" / "classnames.txt").write_text("rose\n")
    (place / "datasets" / "flowers" / "zeroshot_classification_templates.txt").write_text("a {c}, a flower\n")
    made = open_set("flowers")
    assert (made.metric, made.classes, made.templates) == ("mean_per_class", ("rose",), ("a {c}, a flower",))
    tar(place / "datasets" / "flickr8k" / "test" / "0.tar", {"1.png": PNG, "1.txt": b"a dog"})
    assert open_set("flickr8k").task == "retrieval"


def test_the_sources_of_our_own_model_are_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(split: str) -> Pictures:
        pixels = np.zeros((2, 4, 4, 3), np.uint8)
        captions, groups = (("a coat", f"a {split} coat"), ("a bag",)), np.array([1, 0])
        return Pictures("fashion-mnist", pixels, captions, groups, ("bag", "coat"), ("a {}",))

    monkeypatch.setattr("tercet.data.pictures.fashion_mnist.pictures", pictures)
    made = open_set("fashion-mnist")
    assert (made.classes, made.templates, made.metric) == (("bag", "coat"), ("a {}",), "top1")
    assert [labels for _, labels, _ in told(made)] == [(1,), (0,)]
    assert made.training is not None
    monkeypatch.setattr("tercet.data.pictures.scenes.pictures", lambda split: replace(pictures(split), classes=()))
    scenes = open_set("scenes:unseen")
    assert (scenes.name, scenes.task) == ("scenes:unseen", "retrieval")
    assert [captions for _, _, captions in told(scenes)] == [("a coat", "a unseen coat"), ("a bag",)]
    with pytest.raises(FormatError, match="no split 'x'"):
        open_set("emoji:x")


def test_classes_called_by_numbers_need_names(tmp_path: Path) -> None:
    for number in range(3):
        paint(tmp_path / "set" / str(number) / "0.png", "red", number)
    rows = "".join(f"{number}/0.png,{number}\n" for number in range(3))
    (tmp_path / "set" / "t.csv").write_text("image,label\n" + rows)
    for source in (tmp_path / "set", tmp_path / "set" / "t.csv"):
        with pytest.raises(FormatError, match=r"called by numbers \(0 to 2\); put their names"):
            open_set(source)
    (tmp_path / "set" / "classnames.txt").write_text("shoe\nhat\nbag\n")
    for source in (tmp_path / "set", tmp_path / "set" / "t.csv"):
        made = open_set(source)
        assert made.classes == ("shoe", "hat", "bag")
        assert [labels for _, labels, _ in told(made)] == [(0,), (1,), (2,)]
    (tmp_path / "set" / "classnames.txt").write_text("shoe\nhat\n")
    with pytest.raises(FormatError, match=r"class 2, but classnames\.txt has names for 2"):
        open_set(tmp_path / "set" / "t.csv")


def test_pictures_that_are_left_out_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paint(tmp_path / "set" / "hat" / "0.png", "red")
    (tmp_path / "set" / "hat" / "1.heic").write_bytes(b"x")
    open_set(tmp_path / "set")
    (line,) = caplog.messages
    assert "1 .heic left out" in line
    caplog.clear()
    files = {"0.png": encoded(picture(), "PNG"), "0.cls": b"0", "1.avif": b"x", "a.b.png": b"x"}
    (tmp_path / "t").mkdir(exist_ok=True)
    (tmp_path / "t" / "classnames.txt").write_text("hat\n")
    assert len(list(open_set(tar(tmp_path / "t" / "s.tar", files)).samples())) == 1
    formats, dots = caplog.messages
    assert "1 .avif left out" in formats
    assert "1 pictures left out whose names have two dots, such as *.b.png" in dots
