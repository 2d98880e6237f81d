"""The default text: markup goes, paragraphs stay, and the splits never share an article."""

from __future__ import annotations

import bz2
import hashlib
import zipfile
from pathlib import Path

import pytest
import torch

import tiny
from tercet.data import default_text, fetch_default_text, generated_text, packages, text
from tercet.errors import FormatError, ModelError

LONG = "A paragraph that is long enough to be kept, with plain words and nothing else in it at all, really."
WIKI = f"""{{{{Infobox person|name=X}}}}
'''{LONG}'''<ref name="a">{LONG}</ref> It has [[a link|linked]] and [[another]], &amp; (; ) more.
[[File:x.png|thumb|A caption with [[a link]] that is very long, far longer than the eighty characters it takes.]]
* {LONG}
short line
{{| class="wikitable"
| {LONG}
|}}
== History ==
{LONG} Second.
=== Part ===
{LONG} Third.
== References ==
{LONG} Never.
=== Also ===
{LONG} Never again.
== Later ==
{LONG} Fourth.
[[Category:Things]]
"""


def test_markup_goes_and_paragraphs_stay() -> None:
    assert text.clean(WIKI).split("\n") == [
        f"{LONG} It has linked and another, & more.",
        f"{LONG} Second.",
        f"{LONG} Third.",
        f"{LONG} Fourth.",
    ]


def test_articles_are_split_by_their_titles() -> None:
    articles = [(f"Title {index}", f"body {index}.") for index in range(500)]
    parts = text.split_articles(articles)
    found = {split: {line for line in part.splitlines() if line.startswith("Title")} for split, part in parts.items()}
    assert set().union(*found.values()) == {title for title, _ in articles}
    assert sum(map(len, found.values())) == 500
    assert 30 < len(found["test"]) < 70
    assert 30 < len(found["validation"]) < 70
    # One article more moves none of the others.
    assert (
        "Title 7\n"
        in text.split_articles([("New", "x"), *articles[:8]])[
            next(split for split, titles in found.items() if "Title 7" in titles)
        ]
    )


def dump(count: int) -> bytes:
    pages = "".join(
        f"<page><title>T{index}</title><ns>0</ns><revision><text>{(LONG + chr(10)) * 15}</text></revision></page>"
        for index in range(count)
    )
    pages += "<page><title>R</title><ns>0</ns><revision><text>#REDIRECT [[T1]]</text></revision></page>"
    pages += f"<page><title>Talk</title><ns>1</ns><revision><text>{LONG * 20}</text></revision></page>"
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'.encode()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is replaced: it "downloads" a small wheel of the same layout."""
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path / "cache"))
    packed = bz2.compress(dump(40))
    monkeypatch.setattr(text, "SHA256", hashlib.sha256(packed).hexdigest())

    def pip(command: list[str], cwd: str, **_: object) -> object:
        assert "gensim==4.4.0" in command
        assert "--no-deps" in command
        with zipfile.ZipFile(Path(cwd) / "gensim-4.4.0-x.whl", "w") as made:
            made.writestr(text.MEMBER, packed)
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(packages.subprocess, "run", pip)


@pytest.mark.usefixtures("wheel")
def test_the_default_text_is_fetched_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    train = default_text("train")
    assert train is not None
    assert train.count("\n\nA paragraph") > 20
    assert "REDIRECT" not in train + str(default_text("test")) + str(default_text("validation"))
    assert "Talk" not in train
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: pytest.fail("downloaded twice"))
    assert default_text("train") == train
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("wheel")
def test_another_file_in_the_wheel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SHA256", "0" * 64)
    with pytest.raises(FormatError, match="SHA-256 differs"):
        fetch_default_text()


def test_without_pip_there_is_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERCET_CACHE", str(tmp_path))
    failed = type("Done", (), {"returncode": 1, "stderr": "trace\nERROR: no network"})
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    assert default_text("test") is None
    with pytest.raises(ModelError, match=r"could not download gensim==4\.4\.0 from PyPI: ERROR: no network"):
        fetch_default_text()


class Ids:
    def decode(self, ids: list[int]) -> str:
        return " ".join(map(str, ids))


def test_generated_text_is_the_models_own_and_repeatable() -> None:
    model, _, _ = tiny.model("llama")
    state = torch.get_rng_state()
    first = generated_text(model, Ids(), 600, seed=3)
    assert first == generated_text(model, Ids(), 600, seed=3)
    assert first != generated_text(model, Ids(), 600, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    pieces = [[int(token) for token in piece.split()] for piece in first.split("\n\n")]
    assert len(pieces) == 3
    assert all(2 not in piece[1:] for piece in pieces)  # eos ends a piece
    piece = max(pieces, key=len)
    with torch.no_grad():
        logits = model(torch.tensor([piece])).logits[0]
    assert piece[1:4] == logits[:3].argmax(-1).tolist()  # greedy at first
    likely = logits[:-1].log_softmax(-1).gather(-1, torch.tensor(piece[1:])[:, None]).mean()
    assert likely > logits[:-1].log_softmax(-1).mean() + 1  # and then its own choice, not noise
