"""Which text a model is calibrated and measured on, and the record of that choice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from tercet import data, sources
from tercet.errors import TercetError
from tercet.runtime import Tokenizer

__all__ = ["Split", "Text", "choose", "refuse_unreadable"]

Split = Literal["train", "validation", "test"]
MAX_BYTES = 256 << 20


@dataclass(frozen=True)
class Text:
    """A text and where it came from; `name` fits into a sentence, and `str` names it without doubt.

    Attributes:
        parts: what it holds, by kind; of most texts one, without a name.
        sha256: of the parts, one after another.
    """

    parts: Mapping[str, str]
    name: str
    sha256: str

    @property
    def content(self) -> str:
        return "\n\n".join(self.parts.values())

    @property
    def origin(self) -> dict[str, str]:
        return {"name": self.name, "sha256": self.sha256}

    def __str__(self) -> str:
        return f"{self.name} (SHA-256 {self.sha256})"


def choose(
    wanted: str | Path, split: Split, source: sources.Source | None = None, tokens: int = 0, seed: int = 0
) -> Text:
    """The text that is wanted.

    Args:
        wanted: a UTF-8 text file; "default": the default text where it is to be had, else as "generated"; "generated":
            what the model itself writes.
        split: part of the default text.
        source: the model that would write; None where there is none.
        tokens, seed: how much it would write, and from where.

    Raises TercetError where there is no such text.
    """
    if wanted == "default":
        kinds = data.default_texts(split)
        if kinds is not None:
            return _named(kinds, f"the default text ({split})")
    elif wanted != "generated":
        return _named({"": _read(Path(wanted))}, Path(wanted).name)
    if source is None:
        raise TercetError("the default text cannot be had; give a text file")
    written = data.generated_text(source.pretrained(), Tokenizer.open(source.folder), tokens, seed)
    return _named({"": written}, f"text the model wrote itself (seed {seed})")


def refuse_unreadable(*wanted: str | Path | None) -> None:
    """Raises what `choose` would raise for a file, before the work that comes first."""
    for text in wanted:
        if text not in (None, "default", "generated"):
            _read(Path(text))


@cache
def _piped(pipe: Path) -> bytes:
    """What a shell's <(...) gives: it can be read once, and is asked for more often."""
    return _bytes(pipe)


def _bytes(file: Path) -> bytes:
    if file.exists() and not (file.is_file() or file.is_fifo()):
        raise TercetError(f"{file}: a folder or a device; give a text file")
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise TercetError(f"{file}: more than {MAX_BYTES >> 20} MB of text; give a part of it")
    return content


def _named(parts: Mapping[str, str], name: str) -> Text:
    return Text(parts, name, hashlib.sha256("".join(parts.values()).encode()).hexdigest())


def _read(file: Path) -> str:
    try:
        content = _piped(file) if file.is_fifo() else _bytes(file)
        return content.decode("utf-8-sig")  # some editors write a mark of the byte order first
    except OSError as error:
        raise TercetError(f"{file}: cannot be read ({error.strerror}); name another file") from error
    except UnicodeDecodeError as error:
        raise TercetError(f"{file}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except ValueError:
        raise TercetError(f"{str(file)[:200]!r}: no name a file can have; correct it") from None
