"""Technical documentation and source code: of packages for Node.js and Python.

nan 2.30.0, node-addon-api 8.9.2 (npm, MIT)    manuals in Markdown, headers in C++
lodash 4.18.1 (npm, MIT)                       JavaScript
networkx 3.5 (PyPI, BSD 3-clause)              Python, most of it documentation
"""

from __future__ import annotations

from collections.abc import Iterator

from tercet.data.packages import npm_members, wheel_members

__all__ = ["documents"]

NPM = {
    ("nan", "2.30.0"): "b716fb20d159610bbf0c157cd6d643f8b7eb4c737f05ab92be5f246f91b49a69",
    ("node-addon-api", "8.9.2"): "4cd65698541b19a33f798f1dc25c02c6ed1c9d7749b8824b1a1ccecdd197c8ea",
    ("lodash", "4.18.1"): "696942c2a488c9d7428e9ca5f12ccf03b52de01dcdbfe4d4751d392f0491ae16",
}
WHEEL, SHA256 = "networkx==3.5", "0030d386a9a06dee3565298b4a734b68589749a544acbb6c412dc9e2489ec6ec"
REPEATED = 60  # characters: shorter paragraphs, such as a closing brace, may come again
SHORTEST, LONGEST = 1500, 60_000  # bytes of a document; minified bundles are longer


def documents() -> Iterator[tuple[str, str]]:
    """(package and path, text) of each file, without paragraphs that an earlier one has; raises ModelError, FormatError
    where a package is not to be had."""
    seen: set[str] = set()
    for (package, version), sha256 in NPM.items():
        for path, raw in npm_members(package, version, sha256, "0.5 MB", _wanted):
            yield from _document(f"{package}/{path}", raw, seen)
    for path, raw in wheel_members(WHEEL, SHA256, "2 MB", _wanted):
        yield from _document(path, raw, seen)


def _wanted(path: str) -> bool:
    whole = not path.endswith((".min.js", "lodash.js", "core.js")) and "/tests/" not in path and "/fp/" not in path
    return whole and path.endswith((".md", ".h", ".js", ".py"))


def _document(title: str, raw: bytes, seen: set[str]) -> Iterator[tuple[str, str]]:
    paragraphs = raw.decode("utf-8", "replace").replace("\r\n", "\n").strip().split("\n\n")
    kept, size = [], 0
    for paragraph in paragraphs:
        size += len(paragraph)
        if size > LONGEST:
            break
        words = " ".join(paragraph.split())
        if len(words) < REPEATED or words not in seen:
            kept.append(paragraph)
        seen.add(words)
    text = "\n\n".join(kept)
    if len(text) >= SHORTEST:
        yield title, text
