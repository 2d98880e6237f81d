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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio, sources
from tercet.data.pairs import Captioned
from tercet.demo.grid import grid, nearest
from tercet.demo.made import same
from tercet.evaluate.exam import Exam, examined
from tercet.evaluate.machine import machine
from tercet.evaluate.originals import original_row, set_threads
from tercet.evaluate.rows import Row
from tercet.pipeline import Data, Watch
from tercet.pipeline.distil import control, run_name
from tercet.pipeline.lessons.pair import PairLesson
from tercet.pipeline.making import making
from tercet.pipeline.run import make
from tercet.progress import Progress, silent
from tercet.recipe import Recipe
from tercet.runtime.pictures.encoder import Encoder
from tercet.sources.cache import cache_dir

__all__ = ["MODELS", "Shown", "demo_clip"]

PICTURES = ("fashion-mnist", "emoji", "scenes")
HEADLINE = "fashion-mnist"
MODELS = {"q_ffn": "clip-q-ffn", "q_all": "clip-q-all", "q_all_e": "clip-q-all-e"}
SEARCHED = {
    "fashion-mnist": ("a photo of a sneaker.", "a photo of a dress.", "a photo of a bag."),
    "emoji": ("an emoji of dog face", "an emoji of red heart", "an emoji of pizza"),
    "scenes": ("three small green triangles", "a large red square above a small blue circle"),
}
FOUND = 8


@dataclass(frozen=True)
class Shown:
    """What the demo shows.

    Attributes:
        source: the model, as `tercet.sources.resolve` takes it.
        pictures, tested: with captions, by name or opened: what is learnt from, what models are compared on.
        recipes: by the name of a row.
        trained: the recipe whose steps the control takes, and the model that is searched with.
        searched: texts to search for, by the name of what is searched.
    """

    source: str = "clip-tiny"
    pictures: Sequence[str | Captioned] = PICTURES
    tested: Sequence[str | Captioned] = PICTURES
    recipes: Mapping[str, Recipe] | None = None
    trained: str = "q_all"
    searched: Mapping[str, Sequence[str]] = field(default_factory=lambda: SEARCHED)


def demo_clip(
    out: Path, *, shown: Shown | None = None, threads: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Makes and measures the models; writes out/models/*, out/search.png and out/results.json.

    Returns "float" and each of `MODELS` ("zeroshot_top1", "ternary_share", "zero_share", "file_mb"), all rows in
    full, the grid's path, machine and seconds. Raises TercetError.
    """
    begun, watch, shown = time.monotonic(), Watch(progress or silent), shown or Shown()
    set_threads(threads)
    source = sources.resolve(shown.source)
    chosen = dict(shown.recipes or {name: Recipe.load(each) for name, each in MODELS.items()})
    made = making(source, chosen[shown.trained])
    lesson = PairLesson(made, Data(pictures=shown.pictures, eval_pictures=shown.tested), threads)
    # The control's run stays in the cache: a second demo goes on from there.
    folder = cache_dir() / "training" / f"control-{run_name(made, lesson)}"
    rows = [original_row(source, lesson.exams), original_row(source, lesson.exams, control(made, lesson, folder))]
    chosen = {"rounded": _rounded(chosen[shown.trained]), **chosen}
    folders = {name: out / "models" / name for name in chosen}
    seconds: dict[str, float] = {}
    for done, (name, recipe) in enumerate(chosen.items()):
        watch.step("models", done, len(chosen))
        since = time.monotonic()
        if not same(source, folders[name], recipe):
            own = making(source, recipe)
            make(own, lesson.again(own), folders[name], watch)
            seconds[name] = time.monotonic() - since
        rows.append(examined(folders[name], name, lesson.exams, threads))
    watch.step("models", len(chosen), len(chosen))
    place = out / "search.png"
    fsio.atomic_file(place, _search(folders[shown.trained], lesson, shown.searched, threads))
    named = [row for row in rows if row.name != rows[1].name]
    result: dict[str, Any] = {
        **{row.name.replace("original", "float"): _short(row, lesson.exams) for row in named},
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


def _rounded(recipe: Recipe) -> Recipe:
    """The same matrices, plainly rounded: what calibration and training start from."""
    return recipe.model_copy(update={"name": "rounded", "calibrate": None, "distil": None, "train": None})


def _short(row: Row, exams: Sequence[Exam]) -> dict[str, Any]:
    """What stands for a row; without classes to choose from, the first exam's headline."""
    by = next((exam for exam in exams if exam.name == HEADLINE), exams[0])
    return {
        "zeroshot_top1": row.scores[f"{by.name} {by.headline}"],
        "ternary_share": row.ternary_share,
        "zero_share": row.zero_share,
        "file_mb": row.file_mb,
    }


def _search(folder: Path, lesson: PairLesson, searched: Mapping[str, Sequence[str]], threads: int | None) -> bytes:
    encoder = Encoder.open(folder, threads=threads)
    lines: list[str] = []
    found: list[list[NDArray[np.uint8]]] = []
    for exam in lesson.exams:
        texts = list(searched.get(exam.source.name, ()))
        if texts:
            near = nearest(encoder.encode_ids(lesson.reader.captions(texts)), exam.images(encoder.encode_pixels), FOUND)
            lines += texts
            found += [[exam.source.pixels[int(index)] for index in row] for row in near]
    return grid(lines, found)
