"""What users do with an image-text model: embed pictures or texts into a file, search an index.

Who calls says how a model is opened: what opens a source in torch lies above this room.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.errors import FormatError, ModelError, TercetError
from tercet.progress import Progress
from tercet.runtime.pictures.embedder import BATCH, Embedder, normalized
from tercet.runtime.pictures.files import SUFFIXES, left_out
from tercet.search.find import find
from tercet.search.scan import scan
from tercet.search.sheet import sheet
from tercet.search.store import Index

__all__ = ["embed", "search"]

MAX_TEXTS = 1 << 30  # bytes of a file of texts
OUTPUTS = (".npy", ".parquet")
PACKAGED = ("clip-tiny",)

Opening = Callable[[], Embedder]


def embed(
    opening: Opening,
    source: Path,
    out: Path,
    *,
    normalize: bool = False,
    batch: int = BATCH,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Embeds the pictures of a folder, or the lines of a text file.

    Writes float32[n, dim] as .npy with the names of its rows in <out>.names.jsonl, or both as columns `name` and
    `embedding` of a .parquet. A picture that cannot be read has no row; it is listed in the result.

    Args:
        opening: opens the model; called when all else has been checked.
        workers: threads that decode pictures; as many as there are CPUs if None.

    Raises TercetError: nothing to embed, another ending than those two, pyarrow is missing.
    """
    if out.suffix not in OUTPUTS:
        raise TercetError(f"{out}: embeddings are written as .npy or .parquet; give a name that ends so")
    if out.suffix == ".parquet":
        _arrow()
    else:
        fsio.check_file(_names(out))
    fsio.check_file(out)
    clip = opening()
    names, vectors, refused, passed = (
        _pictures(clip, source, (batch, workers), progress)
        if source.is_dir()
        else _texts(clip, source, batch, progress)
    )
    if not len(vectors):
        raise FormatError(
            f"{source}: nothing in it could be embedded ({len(refused)} refused"
            f"{'; ' + left_out(passed) if passed else ''}); give pictures or lines"
        )
    if normalize:
        vectors = normalized(vectors)
    _write(out, names, vectors)
    return {
        "out": str(out),
        "rows": len(vectors),
        "dim": clip.encoder.dim,
        "normalized": normalize,
        "refused": [{"path": path, "reason": reason} for path, reason in refused],
        "left_out": passed,
    }


Rows = tuple[list[str], NDArray[np.float32], list[tuple[str, str]], dict[str, int]]
"""Names, vectors, what was refused and why, and how many pictures were left out by ending."""


def _pictures(clip: Embedder, folder: Path, sizes: tuple[int, int | None], progress: Progress | None) -> Rows:
    found = scan(folder)
    paths = list(found.files)
    names: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    refused = list(found.unread.items())
    for made in clip.pictures(paths, lambda path: folder / path, batch=sizes[0], workers=sizes[1]):
        names += made.sources
        vectors.append(made.vectors)
        refused += made.refused
        if progress is not None:
            progress("pictures", len(names) + len(refused) - len(found.unread), len(paths))
    made_all = np.concatenate(vectors) if vectors else np.zeros((0, clip.encoder.dim), np.float32)
    return names, made_all, refused, dict(found.left_out)


def _texts(clip: Embedder, path: Path, batch: int, progress: Progress | None) -> Rows:
    try:
        if path.stat().st_size > MAX_TEXTS:
            raise FormatError(f"{path}: more than {MAX_TEXTS >> 30} GB of texts; split it")
        texts = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: no folder, and no file of UTF-8 lines: {str(error)[:120]}") from None
    vectors = []
    for start in range(0, len(texts), batch):
        vectors.append(clip.texts(texts[start : start + batch]))
        if progress is not None:
            progress("texts", min(start + batch, len(texts)), len(texts))
    return texts, np.concatenate(vectors) if vectors else np.zeros((0, clip.encoder.dim), np.float32), [], {}


def _write(out: Path, names: list[str], vectors: NDArray[np.float32]) -> None:
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, vectors)
        lines = "".join(json.dumps(name) + "\n" for name in names)
        fsio.atomic_files({out: buffer.getvalue(), _names(out): lines.encode()})
        return
    arrow, parquet = _arrow()
    flat = arrow.array(vectors.reshape(-1))
    columns = {
        "name": arrow.array([name.encode("utf-8", "backslashreplace").decode() for name in names]),
        "embedding": arrow.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
    parquet.write_table(arrow.table(columns), buffer)
    fsio.atomic_file(out, buffer.getvalue())


def _names(out: Path) -> Path:
    """Where the names of an .npy file's rows go."""
    return out.with_name(out.name + ".names.jsonl")


def _arrow() -> tuple[Any, Any]:
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError:
        raise TercetError("parquet files are written by pyarrow; pip install 'tercet[parquet]', or give .npy") from None


def search(
    place: Path,
    query: str,
    opening: Callable[[str], Embedder],
    *,
    model: str | None = None,
    count: int = 10,
    page: Path | None = None,
) -> dict[str, Any]:
    """What an index has for some words, or for a picture.

    Args:
        query: words, or the path of a picture file that is there.
        opening: opens a model by its name.
        model: the model that the index was made with; the one it names if absent.
        page: an HTML contact sheet to write.
    """
    if page is not None:
        fsio.check_file(page)
    opened = Index.open(place)
    clip = opening(_own(opened) if model is None else model)
    picture = _picture(query)
    hits = find(opened, clip, query if picture is None else picture, count)
    if page is not None:
        digests = {hit.path: opened.entries[hit.path].sha256 for hit in hits}
        fsio.atomic_file(page, sheet(query, hits, opened.about["folder"], digests).encode())
    return {
        "query": query,
        "kind": "text" if picture is None else "picture",
        "folder": opened.about["folder"],
        "hits": [hit.as_dict() for hit in hits],
        "page": None if page is None else str(page),
    }


def _own(index: Index) -> str:
    """The model that an index names. Raises ModelError for one that would be downloaded: nobody here has named it."""
    name = str(index.about["model"])
    if name not in PACKAGED and not Path(name).is_dir():
        raise ModelError(f"{index.place}: made by {name[:200]}, which is no folder here; name the model with -m")
    return name


def _picture(query: str) -> Path | None:
    """The file that the query names; a text is none. Raises FormatError where it ends as a picture and is not there."""
    if not query.lower().endswith(SUFFIXES) or "\0" in query:
        return None
    try:
        if Path(query).is_file():
            return Path(query)
    except OSError:  # longer than a path may be
        return None
    raise FormatError(f"{query}: no such picture; give the path of one, or words that do not end like a file")
