"""Tables: CSV, TSV or JSONL with a picture's path and its captions or its class, a picture in one row or in several.

    image,caption                          {"image": "1.jpg", "captions": ["a red shoe", "shoe on a box"]}
    1.jpg,a red shoe                       {"image": "2.jpg", "label": "dog"}

Paths are relative to the table's folder. Known names of columns are in COLUMNS; the first that is there counts.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tercet.data.sets.folders import refuse_numbers
from tercet.data.sets.sample import Sample, Task, natural
from tercet.errors import FormatError

__all__ = ["SUFFIXES", "table"]

SUFFIXES = (".csv", ".tsv", ".jsonl")
COLUMNS = {
    "picture": ("image", "picture", "filepath", "file_name", "filename", "path", "image_path"),
    "captions": ("captions", "caption", "text", "texts", "title"),
    "label": ("label", "class", "category"),
}
MAX_LINE = 1 << 20
MAX_ROWS = 20_000_000


def table(path: Path, known: tuple[str, ...] | None) -> tuple[Task, tuple[str, ...], Callable[[], Iterator[Sample]]]:
    """The task, class names (none for captions), and what begins to read.

    Args:
        known: names of the classes, where labels are their numbers, from 0. Names in the table itself are classes in
            the order of their sorting.

    Raises FormatError, with the line, where a row is not understood; for numbers without names.
    """
    rows = list(_rows(path))
    if not rows:
        raise FormatError(f"{path}: no rows; give a picture and a caption or a class in each")
    captions: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    for line, row in rows:
        picture = _column(row, "picture")
        if not isinstance(picture, str) or not picture:
            raise FormatError(
                f"{path}: line {line}: no picture; a column must be called {' or '.join(COLUMNS['picture'][:3])}"
            )
        said, label = _column(row, "captions"), _column(row, "label")
        if said is not None:
            captions.setdefault(picture, []).extend(_texts(said, f"{path}: line {line}"))
        elif label is not None and not isinstance(label, dict | list):
            labels.setdefault(picture, []).append(str(label))
        else:
            raise FormatError(f"{path}: line {line}: neither caption nor label; a column must be called so")
    if captions and labels:
        raise FormatError(f"{path}: some rows have captions and some only labels; make two tables of it")
    places = {picture: path.parent / picture for picture in captions or labels}
    if captions:
        return "retrieval", (), lambda: (Sample(p, places[p], captions=tuple(t)) for p, t in captions.items())
    names = sorted({label for own in labels.values() for label in own}, key=natural)
    if known is not None and all(label.isdigit() for label in names):
        beyond = next((label for label in names if int(label) >= len(known)), None)
        if beyond is not None:
            raise FormatError(f"{path}: class {beyond[:20]}, but classnames.txt has names for {len(known)}; correct it")
        number, names = {label: int(label) for label in names}, list(known)
    else:
        refuse_numbers(path, names)
        number = {name: index for index, name in enumerate(names)}
    return (
        "classification",
        tuple(names),
        lambda: (Sample(p, places[p], tuple(sorted({number[one] for one in own}))) for p, own in labels.items()),
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # Excel writes a mark of the byte order first
            reader = _json_lines(file, path) if path.suffix == ".jsonl" else _separated(file, path)
            for count, row in enumerate(reader):
                if count >= MAX_ROWS:
                    raise FormatError(f"{path}: more than {MAX_ROWS} rows; split it")
                yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read: {str(error)[:120]}; it must be UTF-8") from None


def _separated(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    head = file.read(4096)
    file.seek(0)
    reader = csv.DictReader(file, delimiter="\t" if "\t" in head.split("\n")[0] else ",", strict=True)
    for row in reader:
        if None in row:
            raise FormatError(f"{path}: line {reader.line_num}: more cells than columns; quote what has a separator")
        yield reader.line_num, {key.strip().lower(): value for key, value in row.items()}


def _json_lines(file: Any, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    line = 0
    while text := file.readline(MAX_LINE + 1):
        line += 1
        if not text.strip():
            continue
        try:
            if len(text) > MAX_LINE:
                raise ValueError
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise FormatError(f"{path}: line {line}: no JSON object of at most {MAX_LINE >> 20} MB")
        yield line, row


def _column(row: dict[str, Any], what: str) -> Any:
    return next((row[name] for name in COLUMNS[what] if row.get(name) is not None), None)


def _texts(value: Any, where: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise FormatError(f"{where}: a caption is empty or no text")
    return texts
