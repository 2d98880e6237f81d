"""`tercet demo clip`: a small CLIP made ternary in several ways, beside the original, and what a search with it finds.

    clip-tiny (comes along) -> rounded, Q-FFN, Q-ALL, Q-ALL+E -> zero-shot and retrieval by the engine -> table, grid

The control row is the original itself, trained on for as many steps: what it gains, distillation cannot claim.
Pictures are Fashion-MNIST, emoji and scenes (`tercet.data.pictures`), fetched on first use. Resumable: a model whose
folder is there, made by the same recipe from the same source, is not made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio, sources
from tercet.artifact import CONFIG, RECIPE, ModelFolder, is_artifact
from tercet.data.captioned import captioned
from tercet.data.pairs import Captioned, ClipData, Reader, gather
from tercet.evaluate.machine import machine
from tercet.evaluate.originals import set_threads
from tercet.pipeline.clip.distil import run_name, train_on
from tercet.pipeline.clip.exam import Exam, prepare
from tercet.pipeline.clip.grid import grid, nearest
from tercet.pipeline.clip.model import ClipModel
from tercet.pipeline.clip.rows import ClipRow, examined, original
from tercet.pipeline.clip.run import make
from tercet.progress import Progress, silent
from tercet.recipe import Recipe
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources.cache import cache_dir

__all__ = ["MODELS", "demo_clip"]

SOURCE = "clip-tiny"
PICTURES = ("fashion-mnist", "emoji", "scenes")
HEADLINE = "fashion-mnist"
MODELS = {"q_ffn": "clip-q-ffn", "q_all": "clip-q-all", "q_all_e": "clip-q-all-e"}
TRAINED = "q_all"  # the recipe whose steps the control takes, and the model that is searched with
SEARCHED = {
    "fashion-mnist": ("a photo of a sneaker.", "a photo of a dress.", "a photo of a bag."),
    "emoji": ("an emoji of dog face", "an emoji of red heart", "an emoji of pizza"),
    "scenes": ("three small green triangles", "a large red square above a small blue circle"),
}
FOUND = 8


def demo_clip(
    out: Path,
    *,
    source: str | None = None,
    pictures: Sequence[Captioned] | None = None,
    tested: Sequence[Captioned] | None = None,
    recipes: Mapping[str, Recipe] | None = None,
    searched: Mapping[str, Sequence[str]] = SEARCHED,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Makes and measures the models; writes out/models/*, out/search.png and out/results.json.

    Args:
        source, pictures, tested, recipes, searched: in place of the demo's own.

    Returns "float" and each of `MODELS` ("zeroshot_top1", "ternary_share", "zero_share", "file_mb"), all rows in
    full, the grid's path, machine and seconds. Raises TercetError.
    """
    begun, step = time.monotonic(), progress or silent
    set_threads(threads)
    model = ClipModel.open(sources.resolve(source or SOURCE))
    learnt = pictures or [captioned(name) for name in PICTURES]
    tests = tested or [captioned(name, "test") for name in PICTURES]
    reader = model.reader()
    exams = [prepare(each, reader) for each in tests]
    chosen = dict(recipes or {name: Recipe.load(each) for name, each in MODELS.items()})
    data = _data(chosen[TRAINED], learnt, reader, step)
    rows = [original(model, exams), _control(model, chosen[TRAINED], data, exams)]
    chosen = {"rounded": _rounded(chosen[TRAINED]), **chosen}
    seconds: dict[str, float] = {}
    for done, (name, recipe) in enumerate(chosen.items()):
        step("models", done, len(chosen))
        folder, since = out / "models" / name, time.monotonic()
        if not _same(model, folder, recipe):
            make(model, folder, recipe, data if recipe.train else None, step)
            seconds[name] = time.monotonic() - since
        rows.append(examined(folder, name, exams, threads))
    step("models", len(chosen), len(chosen))
    place = out / "search.png"
    fsio.atomic_file(place, _search(out / "models" / TRAINED, reader, tests, exams, searched, threads))
    result: dict[str, Any] = {
        **{
            row.name.replace("original", "float"): _short(row, exams)
            for row in rows
            if row.name != "original, trained on"
        },
        "rows": [row.as_dict() for row in rows],
        "search": str(place),
        "machine": machine(),
        "command": "tercet demo clip",
        "date": time.strftime("%Y-%m-%d"),
        "seconds_to_make": seconds,
        "seconds": time.monotonic() - begun,
    }
    fsio.atomic_file(out / "results.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def _data(recipe: Recipe, pictures: Sequence[Captioned], reader: Reader, step: Progress) -> ClipData:
    assert recipe.train is not None
    rows = recipe.train.steps * recipe.train.batch * recipe.train.accumulation
    return gather(pictures, reader, rows, recipe.train.seed, progress=lambda i, n: step("read pictures", i, n))


def _control(model: ClipModel, recipe: Recipe, data: ClipData, exams: Sequence[Exam]) -> ClipRow:
    """Its run stays in the cache: a second demo goes on from there."""
    run = cache_dir() / "training" / f"control-{run_name(model.source.origin, recipe, data)}"
    return original(model, exams, train_on(model.towers, model.tensors, recipe, data, run))


def _rounded(recipe: Recipe) -> Recipe:
    """The same matrices, plainly rounded: what calibration and training start from."""
    return recipe.model_copy(update={"name": "rounded", "calibrate": None, "distil": None, "train": None})


def _same(model: ClipModel, folder: Path, recipe: Recipe) -> bool:
    if not is_artifact(folder):
        return False
    files = ModelFolder(folder)
    config, written = files.json(CONFIG), files.json(RECIPE)
    return bool(config["source"] == model.source.origin and written == recipe.model_dump(mode="json"))


def _short(row: ClipRow, exams: Sequence[Exam]) -> dict[str, Any]:
    """What stands for a row; without classes to choose from, the first exam's headline."""
    by = next((exam for exam in exams if exam.name == HEADLINE), exams[0])
    return {
        "zeroshot_top1": row.scores[by.name][by.headline],
        "ternary_share": row.ternary_share,
        "zero_share": row.zero_share,
        "file_mb": row.file_mb,
    }


def _search(
    folder: Path,
    reader: Reader,
    tests: Sequence[Captioned],
    exams: Sequence[Exam],
    searched: Mapping[str, Sequence[str]],
    threads: int | None,
) -> bytes:
    encoder = Encoder.open(folder, threads=threads)
    lines: list[str] = []
    found: list[list[NDArray[np.uint8]]] = []
    for source, exam in zip(tests, exams, strict=True):
        texts = list(searched.get(source.name, ()))
        if texts:
            near = nearest(encoder.encode_ids(reader.labels(texts)), exam.images(encoder.encode_pixels), FOUND)
            lines += texts
            found += [[source.pixels[int(index)] for index in row] for row in near]
    return grid(lines, found)
