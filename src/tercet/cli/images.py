"""Commands that use an image-text model: embed, index, search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tercet.cli.common import AsJson, Threads, emit, render, typer
from tercet.cli.live import progress_bar
from tercet.shown import printable

if TYPE_CHECKING:
    from tercet.runtime import Embedder

__all__ = ["embed", "index", "search"]

LISTED = 40  # refusals shown as text; --json has all

Batch = Annotated[int, typer.Option("--batch", min=1, max=4096, help="Number of pictures or texts to compute at once.")]


def embed(
    model: Annotated[
        str, typer.Argument(metavar="DIR|SOURCE", help="Image-text model: a packed folder, or a pretrained model.")
    ],
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE.txt", help="Folder of pictures, or text file with one text a line.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE.npy|.parquet", help="File of embeddings to write.")],
    normalize: Annotated[bool, typer.Option("--normalize", help="Scale each vector to length 1.")] = False,
    batch: Batch = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Embed the pictures of a folder, or the lines of a text file."""
    from tercet.evaluate.models import open_embedder
    from tercet.search.commands import embed as run

    def opening() -> Embedder:
        return open_embedder(model, threads=threads)

    with progress_bar() as progress:
        result = run(opening, source, out, normalize=normalize, batch=batch, workers=threads, progress=progress)
    emit(result, as_json, _embed_text)


def _embed_text(result: dict[str, Any]) -> str:
    return "\n".join([f"wrote {result['out']}: {result['rows']} x {result['dim']} float32", *_refused(result)])


def index(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of pictures, of any depth.")],
    model: Annotated[
        str,
        typer.Option(
            "-m", "--model", metavar="DIR|SOURCE", help="Image-text model: a packed folder, or a pretrained model."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="INDEX", help="Index to make, or to bring up to date.")],
    batch: Batch = 32,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Index a folder of pictures, or bring its index up to date."""
    from tercet.evaluate.models import open_embedder
    from tercet.search import build

    name = str(Path(model).resolve()) if Path(model).exists() else model  # found from other folders too
    with progress_bar() as progress:
        embedder = replace(open_embedder(model, threads=threads), name=name)
        report = build(folder, embedder, out, batch=batch, workers=threads, progress=progress)
    emit({"index": str(out), **report.as_dict()}, as_json, _index_text)


def _index_text(result: dict[str, Any]) -> str:
    counts = ", ".join(f"{result[what]} {what}" for what in ("added", "changed", "removed", "kept"))
    line = f"{result['index']}: {result['pictures']} pictures ({counts}), {result['seconds']:.1f} s"
    return "\n".join([line, *_refused(result)])


def _refused(result: dict[str, Any]) -> list[str]:
    from tercet.runtime.pictures.files import left_out

    refused, passed = result["refused"], [left_out(result["left_out"])] if result["left_out"] else []
    if not refused:
        return passed
    shown = [f"  {printable(item['path'])}: {printable(item['reason'])}" for item in refused[:LISTED]]
    more = [f"  and {len(refused) - LISTED} more; --json lists all"] if len(refused) > LISTED else []
    return [*passed, f"{len(refused)} refused:", *shown, *more]


def search(
    place: Annotated[Path, typer.Argument(metavar="INDEX", help="Index that `tercet index` wrote.")],
    query: Annotated[
        str, typer.Argument(metavar="TEXT|PICTURE", help="Words to search for, or the path of a picture.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="DIR|SOURCE",
            help="Model that the index was made with, where it is no longer the folder that the index names.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("-k", "--count", min=1, max=10_000, help="Number of pictures to find.")] = 10,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a contact sheet with thumbnails.")
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Find the pictures of an index that are nearest to some words, or to a picture."""
    from tercet.evaluate.models import open_embedder
    from tercet.search.commands import search as run

    def opening(name: str) -> Embedder:
        return open_embedder(name, threads=threads)

    emit(run(place, query, opening, model=model, count=count, page=page), as_json, _search_text)


def _search_text(result: dict[str, Any]) -> str:
    rows = [(hit["path"], f"{hit['score']:.3f}", str(number)) for number, hit in enumerate(result["hits"], start=1)]
    end = "" if result["page"] is None else f"wrote {result['page']}"
    return render((f"in {result['folder']}", "cosine", "place"), rows) + end
