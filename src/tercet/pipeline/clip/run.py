"""Source to packed folder for a model of pictures and texts, and the table it ends with.

    source -> plan of both towers -> calibrated or rounded -> distilled -> packed -> beside the original, by the engine

As `tercet.pipeline.run`: stages without state of their own, what can be resumed lies in the cache, and the folder
appears whole or not at all.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tercet import artifact
from tercet.calibrate import Quantized
from tercet.data.pairs import Captioned, ClipData, gather
from tercet.errors import RecipeError, TercetError
from tercet.evaluate.originals import set_threads
from tercet.pipeline.card import append
from tercet.pipeline.clip.distil import Validation, distil
from tercet.pipeline.clip.exam import prepare
from tercet.pipeline.clip.model import ClipModel
from tercet.pipeline.clip.rows import ClipRow, examined, markdown, original
from tercet.pipeline.clip.start import begin
from tercet.pipeline.clip.student import check
from tercet.pipeline.convert import convert
from tercet.pipeline.distil import Watch
from tercet.pipeline.folder import checked_target
from tercet.progress import Progress, silent
from tercet.recipe import Planned, Recipe
from tercet.sources.cache import cache_dir

__all__ = ["ClipReport", "make", "quantize", "write"]


@dataclass(frozen=True)
class ClipReport:
    """What `quantize` did. Attributes: data: what was read, None where weights were only rounded; seconds: of making
    the folder; rows: original and packed model, the latter alone where nothing was examined."""

    folder: Path
    data: str | None
    seconds: float
    rows: tuple[ClipRow, ...]

    def as_dict(self) -> dict[str, Any]:
        rows = [row.as_dict() for row in self.rows]
        return {"folder": str(self.folder), "data": self.data, "seconds": self.seconds, "rows": rows}


def quantize(
    model: ClipModel,
    out: str | Path,
    recipe: Recipe,
    pictures: Sequence[Captioned] = (),
    *,
    captions: Sequence[str] = (),
    examined_on: Sequence[Captioned] = (),
    threads: int | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> ClipReport:
    """Quantize both towers into a packed folder.

    Args:
        out: the folder to write; an earlier packed folder there is replaced, anything else refused.
        pictures: what calibration and training read; those without captions unpaired.
        captions: texts without pictures.
        examined_on: what original and packed model are compared on.
        threads: of torch and of the engine.
        progress: called with (what, done, total). watch: with each record of the journal and the number of its steps.

    Raises TercetError.
    """
    since, step = time.monotonic(), progress or silent
    set_threads(threads)
    _plan(model, recipe)  # these three refuse now what they would refuse after all the work
    model.files()
    folder = checked_target(Path(out))
    exams = [prepare(source, model.reader()) for source in examined_on]
    data = _data(model, recipe, pictures, captions, step)
    make(model, folder, recipe, data, step, watch)
    seconds = time.monotonic() - since
    rows: tuple[ClipRow, ...] = (examined(folder, recipe.name, exams, threads),)
    if exams:
        rows = (original(model, exams), *rows)
        append(folder, f"## Compared with the original\n\n{markdown(rows)}\nShares of 1; MB are 10^6 bytes.\n")
    return ClipReport(folder, data.name if data else None, seconds, rows)


def make(
    model: ClipModel,
    folder: Path,
    recipe: Recipe,
    data: ClipData | None,
    step: Progress = silent,
    watch: Watch | None = None,
    *,
    validate: Validation | None = None,
) -> Path | None:
    """Calibrates or rounds, distils and packs; the folder of the run, if there was one. Arguments as of `distil`."""
    plan = _plan(model, recipe)
    tensors, run = begin(model.towers, model.tensors, recipe, plan, data, step).tensors, None
    if recipe.distil is not None:
        assert data is not None
        runs, origin = cache_dir() / "training", model.source.origin
        made = distil(
            model.towers, model.tensors, origin, recipe, plan, tensors, data, runs, step, watch, validate=validate
        )
        tensors, run = made.tensors, made.folder
    write(folder, model, recipe, plan, tensors, data, step)
    return run


def _plan(model: ClipModel, recipe: Recipe) -> dict[str, Planned]:
    if recipe.rotate:
        raise RecipeError(f"{recipe.name}: `rotate` is for language models; towers are not rotated")
    plan = recipe.plan(model.towers)
    check(plan)
    return plan


def _data(
    model: ClipModel, recipe: Recipe, pictures: Sequence[Captioned], captions: Sequence[str], step: Progress
) -> ClipData | None:
    """As many pairs as training reads; for calibration alone, as many as it has tokens for, and texts at most."""
    if recipe.train is None and recipe.calibrate is None:
        return None
    if not pictures:
        raise TercetError(f"{recipe.name} calibrates or trains, and reads pictures and captions; give it some")
    if recipe.train is not None:
        rows, seed = recipe.train.steps * recipe.train.batch * recipe.train.accumulation, recipe.train.seed
    else:
        assert recipe.calibrate is not None
        shortest = min(model.towers.image.context, model.towers.text.context)
        rows, seed = recipe.calibrate.tokens // shortest, recipe.calibrate.seed
    return gather(
        pictures,
        model.reader(),
        rows,
        seed,
        captions=captions,
        progress=lambda i, n: step("read pictures", i, n),
    )


def write(
    folder: Path,
    model: ClipModel,
    recipe: Recipe,
    plan: Mapping[str, Planned],
    quantized: Mapping[str, Quantized],
    data: ClipData | None,
    step: Progress = silent,
) -> None:
    """Writes the packed folder. Raises StorageError."""
    packed, errors = convert(model.towers, model.tensors, plan, quantized, lambda i, n: step("pack", i, n))
    how = "rounded, without calibration" if data is None else f"made with pictures and captions of {data.name}"
    about = f"# {model.source.name}, quantized by Tercet\n\nWeights {how}. Recipe: {recipe.name}, in `recipe.json`.\n"
    read = None if data is None else {"name": data.name, "sha256": data.digest}
    artifact.save(
        folder,
        model=model.source.config,
        tensors=packed,
        tokenizer_files=model.files(),
        recipe=recipe.model_dump(mode="json"),
        card=about,
        generation={},
        source=model.source.origin,
        calibration={"text": None, "pictures": read, "error": errors},
    )
