"""Commands that use a model of pictures and texts: embed, index, search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape

from tercet.cli.common import AsJson, Threads, emit, progress_bar, render, typer

__all__ = ["embed", "index", "search"]

LISTED = 40  # refusals shown as text; --json has all

Batch = Annotated[int, typer.Option("--batch", min=1, max=4096, help="Pictures or texts computed at once.")]


def embed(
    model: Annotated[str, typer.Argument(metavar="DIR|SOURCE", help="A packed folder, or a float model.")],
    source: Annotated[Path, typer.Argument(metavar="FOLDER|FILE.txt", help="Pictures, or a text a line.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.npy|.parquet", help="What to write.")],
    normalize: Annotated[bool, typer.Option("--normalize", help="Vectors of length 1.")] = False,
    batch: Batch = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Embed the pictures of a folder, or the lines of a text file."""
    from tercet.pipeline.pictures import embed as run

    with progress_bar() as progress:
        result = run(model, source, out, normalize=normalize, batch=batch, threads=threads, progress=progress)
    emit(result, as_json, _embed_text)


def _embed_text(result: dict[str, Any]) -> str:
    return "\n".join([f"wrote {result['out']}: {result['rows']} x {result['dim']} float32", *_refused(result)])


def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The pictures, in folders of any depth.")],
    model: Annotated[str, typer.Option("-m", "--model", metavar="DIR|SOURCE", help="A packed folder, or a model.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="INDEX", help="The index: made, or brought up to date.")],
    batch: Batch = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Index a folder of pictures; again, to bring the index up to date."""
    from tercet.pipeline.pictures import index as run

    with progress_bar() as progress:
        result = run(folder, model, out, batch=batch, threads=threads, progress=progress)
    emit(result, as_json, _index_text)


def _index_text(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{result[what]} {what}" for what in ("added", "changed", "removed", "kept"))
    line = f"{result['index']}: {result['pictures']} pictures ({counts}), {result['seconds']:.1f} s"
    return "\n".join([line, *_refused(result)])


def _refused(result: dict[str, Any]) -> list[str]:
    refused = result["refused"]
    if not refused:
        return []
    shown = [f"  {_plain(item['path'])}: {_plain(item['reason'])}" for item in refused[:LISTED]]
    more = [f"  and {len(refused) - LISTED} more; --json lists all"] if len(refused) > LISTED else []
    return [f"{len(refused)} refused:", *shown, *more]


def search(
    place: Annotated[Path, typer.Argument(metavar="INDEX", help="What tercet index wrote.")],
    query: Annotated[str, typer.Argument(metavar="TEXT|PICTURE", help="Words, or the path of a picture.")],
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="DIR|SOURCE", help="The model of the index, if it has moved.")
    ] = None,
    count: Annotated[int, typer.Option("-k", "--count", min=1, max=10_000, help="Pictures to find.")] = 10,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a contact sheet with thumbnails.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of an index that are nearest to some words, or to a picture."""
    from tercet.pipeline.pictures import search as run

    emit(run(place, query, model=model, count=count, page=page, threads=threads), as_json, _search_text)


def _search_text(result: dict[str, Any]) -> str:
    rows = [
        (escape(_plain(hit["path"])), f"{hit['score']:.3f}", str(number))
        for number, hit in enumerate(result["hits"], start=1)
    ]
    end = "" if result["page"] is None else f"wrote {result['page']}"
    return render((f"in {escape(_plain(result['folder']))}", "cosine", "place"), rows) + end


def _plain(text: str) -> str:
    """A file name on a terminal: one line, no control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)
