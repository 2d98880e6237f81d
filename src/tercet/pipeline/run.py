"""source -> plan -> calibrated or rounded tensors -> distilled -> packed folder -> comparison with the original.

A loop over stages without state of its own: what can be resumed (blocks already calibrated, checkpoints of training,
sources already converted) lies in the cache, keyed by content; the folder appears whole, by one rename, or not at all.
What kind of model it is matters to its lesson alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tercet import sources
from tercet.errors import ModelError
from tercet.evaluate.originals import set_threads
from tercet.evaluate.rows import Row, markdown
from tercet.modules.agreement import disagreement
from tercet.pipeline.card import append
from tercet.pipeline.distil import distil
from tercet.pipeline.folder import checked_target, folder_mb, write
from tercet.pipeline.forecast import planned
from tercet.pipeline.lessons import Data, Lesson, lesson_for
from tercet.pipeline.making import Making, Watch, making
from tercet.pipeline.start import begin
from tercet.recipe import Recipe
from tercet.sources.cache import cache_dir
from tercet.train.processes import Processes

__all__ = ["Report", "make", "quantize"]

MISREAD = 0.01  # of the largest result; rounding alone gives 1e-5


@dataclass(frozen=True)
class Report:
    """What `quantize` did.

    Attributes:
        folder: the packed folder.
        read: how the weights came about, for a sentence.
        plan: what became of the matrices, formats and groups (`tercet.pipeline.forecast.planned`).
        seconds: wall clock of making the folder, the comparison not counted.
        rows: original and packed model; empty where no comparison was asked for.
        protocol: how the rows were measured, one sentence.
    """

    folder: Path
    read: str
    plan: str
    seconds: float
    file_mb: float
    rows: tuple[Row, ...] = ()
    protocol: str = ""
    errors: dict[str, float] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "read": self.read,
            "plan": self.plan,
            "seconds": self.seconds,
            "file_mb": self.file_mb,
            "rows": [row.as_dict() for row in self.rows],
            "protocol": self.protocol,
        }


def quantize(
    source: str | sources.Source,
    out: str | Path,
    recipe: str | Path | Recipe = "w1.58",
    data: Data | None = None,
    *,
    threads: int | None = None,
    watch: Watch | None = None,
) -> Report:
    """Quantize a pretrained model into a packed folder, and compare the two.

    Launched in several processes, all distil; the first calibrates before that, and packs and compares after it (the
    others' reports have no rows and no size).

    Args:
        source: a name, folder, GGUF file or hub id (`tercet.sources.resolve`).
        out: the folder to write; an earlier packed folder there is replaced, anything else refused.
        recipe: a recipe, its file, or the name of one that ships.
        data: what is read in place of what the recipe says.
        threads: of torch and of the engine.
        watch: how to follow it.

    Raises TercetError: one line that says what was wrong and what to do.
    """
    since, data, watch = time.monotonic(), data or Data(), watch or Watch()
    set_threads(threads)
    origin = source if isinstance(source, sources.Source) else sources.resolve(source)
    made = making(origin, recipe if isinstance(recipe, Recipe) else Recipe.load(recipe))
    folder = checked_target(Path(out))
    lesson = lesson_for(made, data, threads)
    if data.examine:
        _refuse_misread(origin)
    errors = make(made, lesson, folder, watch)
    if errors is None:
        return Report(folder, lesson.provenance(), planned(made), time.monotonic() - since, 0.0)
    seconds, size = time.monotonic() - since, folder_mb(folder)
    report = Report(folder, lesson.provenance(), planned(made), seconds, size, errors=errors)
    if not data.examine:
        return report
    found = lesson.examine({made.recipe.name: folder}, watch)
    if len(found.rows) > 1:
        append(folder, f"## Compared with the original\n\n{markdown(found.rows)}\n{found.protocol}\n")
    return replace(report, rows=found.rows, protocol=found.protocol)


def _refuse_misread(source: sources.Source) -> None:
    """Where the original is run anyway, it is asked first whether our program is what transformers makes of it."""
    apart = disagreement(source)
    if apart is not None and not apart < MISREAD:  # NaN too
        raise ModelError(
            f"{source.name}: our reading of its config gives results that differ from transformers' by {apart:.1%}; "
            "nothing was done: please report it, with config.json"
        )


def make(made: Making, lesson: Lesson, folder: Path, watch: Watch) -> dict[str, float] | None:
    """Calibrates or rounds, distils and packs: the relative error of each matrix; None on all processes but the first.

    Raises TercetError.
    """
    if made.recipe.distil is None:
        quantized = begin(made, lesson, watch).tensors
    else:
        processes = Processes()
        with processes.first_goes_first():
            start = begin(made, lesson, watch)
        quantized = distil(made, lesson, start.tensors, cache_dir() / "training", watch).tensors
        if not processes.first:
            return None
    return write(folder, made, lesson, quantized, watch)
