"""What users do with a model of pictures and texts: evaluate it, embed with it, index a folder, search the index."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.artifact import is_artifact
from tercet.data.sets import open_set
from tercet.errors import FormatError, ModelError, TercetError
from tercet.evaluate.picture_rows import bars, check_bars
from tercet.evaluate.pictures import as_dict, measure
from tercet.progress import Progress
from tercet.runtime.pictures.embedder import BATCH, Embedder, normalized
from tercet.runtime.pictures.files import SUFFIXES, left_out
from tercet.search import Index, build, find
from tercet.search.scan import scan
from tercet.search.sheet import sheet

__all__ = ["embed", "evaluate_pictures", "index", "open_towers", "search"]

MAX_TEXTS = 1 << 30  # bytes of a file of texts
OUTPUTS = (".npy", ".parquet")
PACKAGED = ("clip-tiny",)


def open_towers(name: str | Path, *, threads: int | None = None) -> Embedder:
    """A packed folder opens in the engine; anything else is a source (`tercet.sources`) and opens in torch."""
    if is_artifact(Path(name)):
        return Embedder.open(name, threads=threads)
    from tercet import sources
    from tercet.evaluate.originals import open_float, set_threads

    set_threads(threads)
    return open_float(sources.resolve(str(name)))


def evaluate_pictures(
    model: str | Path,
    datasets: Sequence[str | Path],
    *,
    original: str | Path | None = None,
    limit: int | None = None,
    linear: bool = False,
    plot: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measures a model, and the one it was made of, on sets of pictures.

    Args:
        datasets: names or paths, as `tercet.data.sets.open_set` takes them.
        original: the model it is compared with.
        limit: so many pictures of each only, evenly from its classes.
        linear: a linear probe too, where there are training pictures.
        plot: a PNG to draw. Whether that can be done is checked first; what fails nevertheless is "plot_failed".

    Returns {"datasets": [...], "mean": of the sets' own metrics, ...}; results are those of "model" and of "original".
    Raises TercetError.
    """
    if plot is not None:
        check_bars(plot)
    sets = [open_set(source) for source in datasets]  # all names are checked before any model is opened
    places = {"model": model, **({} if original is None else {"original": original})}
    clips = {name: open_towers(place, threads=threads) for name, place in places.items()}
    results = []
    for pictures in sets:
        made = {
            name: measure(clip, pictures, limit=limit, linear=linear, workers=threads, progress=progress)
            for name, clip in clips.items()
        }
        results.append(as_dict(pictures, made))
    failed = None if plot is None else _drawn(plot, results)
    return {
        "model": str(model),
        "original": None if original is None else str(original),
        "datasets": results,
        "mean": {name: float(np.mean([one["models"][name][one["metric"]] for one in results])) for name in places},
        "plot": None if plot is None or failed else str(plot),
        "plot_failed": failed,
    }


def _drawn(place: Path, results: list[dict[str, Any]]) -> str | None:
    """Writes the bars; why not, where that fails: what was measured for hours is not lost with them."""
    try:
        fsio.atomic_file(place, bars(results))
    except Exception as error:  # matplotlib raises of everything
        return str(error) if isinstance(error, TercetError) else f"{place}: {type(error).__name__}: {str(error)[:120]}"
    return None


def embed(
    model: str | Path,
    source: Path,
    out: Path,
    *,
    normalize: bool = False,
    batch: int = BATCH,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Embeds the pictures of a folder, or the lines of a text file.

    Writes float32[n, dim] as .npy with the names of its rows in <out>.names.jsonl, or both as columns `name` and
    `embedding` of a .parquet. A picture that cannot be read has no row; it is listed in the result.

    Raises TercetError: nothing to embed, another ending than those two, pyarrow is missing.
    """
    if out.suffix not in OUTPUTS:
        raise TercetError(f"{out}: embeddings are written as .npy or .parquet; give a name that ends so")
    if out.suffix == ".parquet":
        _arrow()
    else:
        fsio.check_file(_names(out))
    fsio.check_file(out)
    clip = open_towers(model, threads=threads)
    names, vectors, refused, passed = (
        _pictures(clip, source, batch, threads, progress) if source.is_dir() else _texts(clip, source, batch, progress)
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


def _pictures(clip: Embedder, folder: Path, batch: int, threads: int | None, progress: Progress | None) -> Rows:
    found = scan(folder)
    paths = list(found.files)
    names: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    refused = list(found.unread.items())
    for made in clip.pictures(paths, lambda path: folder / path, batch=batch, workers=threads):
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


def index(
    folder: Path,
    model: str | Path,
    out: Path,
    *,
    batch: int = BATCH,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Makes or updates the index of a folder (`tercet.search.build`)."""
    name = str(Path(model).resolve()) if Path(model).exists() else str(model)  # found from other folders too
    clip = replace(open_towers(model, threads=threads), name=name)
    return {"index": str(out), **build(folder, clip, out, batch=batch, workers=threads, progress=progress).as_dict()}


def search(
    place: Path,
    query: str,
    *,
    model: str | Path | None = None,
    count: int = 10,
    page: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """What an index has for some words, or for a picture.

    Args:
        query: words, or the path of a picture file that is there.
        model: the model that the index was made with; the one it names if absent.
        page: an HTML contact sheet to write.
    """
    if page is not None:
        fsio.check_file(page)
    opened = Index.open(place)
    clip = open_towers(_own(opened) if model is None else model, threads=threads)
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
