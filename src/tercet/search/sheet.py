"""What was found, as one HTML page without scripts: thumbnails are inlined, names are escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tercet.artifact import open_regular
from tercet.errors import FormatError
from tercet.runtime.pictures.files import MAX_FILE, open_picture
from tercet.runtime.pictures.preprocess import on_white
from tercet.search.find import Hit

__all__ = ["sheet"]

SIDE = 240
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
figure { margin: 0 } img { max-width: 100%; display: block } p { margin: 0 0 1.5rem }
figcaption { overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
"""


def sheet(query: str, hits: Sequence[Hit], folder: str | Path, digests: Mapping[str, str]) -> str:
    """The page. A picture that is gone or damaged by now has its reason in its place.

    Args:
        folder: of the pictures, as the index names it.
        digests: SHA-256 of each picture, by path, as the index has it. A file with another content is not shown: who
            made the index has not seen it, and may only want to.
    """
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(_shown(query))}</title>",
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:;"
        " style-src 'unsafe-inline'\">",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<style>{STYLE}</style><h1>{html.escape(_shown(query))}</h1>",
        f"<p>{len(hits)} nearest in {html.escape(_shown(str(folder)))}</p><main>",
    ]
    for number, hit in enumerate(hits, start=1):
        name = html.escape(_shown(hit.path))
        parts.append(
            f"<figure>{_thumbnail(Path(folder, hit.path), name, digests.get(hit.path))}"
            f"<figcaption>{number}. {name}<br>{hit.score:.3f}</figcaption></figure>"
        )
    return "\n".join([*parts, "</main></html>\n"])


def _thumbnail(path: Path, name: str, digest: str | None) -> str:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(MAX_FILE + 1)
        if hashlib.sha256(content).hexdigest() != digest:
            raise FormatError("changed since it was indexed; bring the index up to date")
        picture = on_white(open_picture(content, str(path)))
    except OSError as error:
        return f"<p>{html.escape(_shown(str(error.strerror)))}</p>"
    except FormatError as error:
        reason = html.escape(_shown(str(error).removeprefix(f"{path}: ")))
        return f"<p>{reason}</p>"
    picture.thumbnail((SIDE, SIDE))
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=85)
    return f"<img alt='{name}' src='data:image/jpeg;base64,{base64.b64encode(made.getvalue()).decode()}'>"


def _shown(text: str) -> str:
    """Text that can be written as UTF-8: what is no character becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
