"""source -> plan -> calibrated or rounded tensors -> distilled -> packed folder -> comparison with the original.

A loop over stages without state of its own: what can be resumed (blocks already calibrated, checkpoints of training,
sources already converted) lies in the cache, keyed by content; the folder appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tercet import sources
from tercet.data.texts import choose, refuse_unreadable
from tercet.errors import RecipeError
from tercet.evaluate.rows import Row, markdown
from tercet.pipeline.against_original import compare_with_original, protocol
from tercet.pipeline.card import append
from tercet.pipeline.distil import Watch, distil
from tercet.pipeline.folder import checked_target, folder_mb, write
from tercet.pipeline.output_clamp import clipped
from tercet.pipeline.rotation import rotated_source
from tercet.pipeline.start import begin
from tercet.progress import Progress, silent
from tercet.recipe import ClipDistil, Distil, Recipe
from tercet.sources.cache import cache_dir
from tercet.train.processes import Processes

__all__ = ["EVALUATION_SEED", "Report", "quantize"]

EVALUATION_SEED = 1 << 32  # of generated text, far from any calibration seed a person would choose


@dataclass(frozen=True)
class Report:
    """What `quantize` did.

    Attributes:
        folder: the packed folder.
        text: what calibration read; None where weights were only rounded.
        seconds: wall clock of making the folder, the comparison not counted.
        rows: original and packed model; empty where no comparison was asked for.
        protocol: how the rows were measured, one sentence.
    """

    folder: Path
    text: str | None
    seconds: float
    file_mb: float
    rows: tuple[Row, ...] = ()
    protocol: str = ""
    errors: dict[str, float] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "text": self.text,
            "seconds": self.seconds,
            "file_mb": self.file_mb,
            "rows": [row.as_dict() for row in self.rows],
            "protocol": self.protocol,
        }


def quantize(
    source: str | sources.Source,
    out: str | Path,
    recipe: str | Path | Recipe = "w1.58",
    *,
    text: str | Path | None = None,
    tokens: int | None = None,
    seed: int | None = None,
    eval_text: str | Path | None = None,
    eval_tokens: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Report:
    """Quantize a pretrained model into a packed folder, and compare the two.

    Launched in several processes, all distil; the first calibrates before that, and packs and compares after it (the
    others' reports have no rows and no size).

    Args:
        source: a name, folder, GGUF file or hub id (`tercet.sources.resolve`).
        out: the folder to write; an earlier packed folder there is replaced, anything else refused.
        recipe: a recipe, its file, or the name of one that ships.
        text: calibration text: a file, "default" or "generated"; the recipe's if None.
        tokens, seed: override the recipe's.
        eval_text: text of the comparison, likewise.
        eval_tokens: tokens of the comparison; the recipe's if None, no comparison if 0.
        threads: of torch and of the engine.
        progress: called with (what, done, total).
        watch: called with each record of training's journal and the number of its steps.

    Raises TercetError: one line that says what was wrong and what to do.
    """
    since = time.monotonic()
    step = progress or silent
    origin = source if isinstance(source, sources.Source) else sources.resolve(source)
    rules = _overridden(recipe if isinstance(recipe, Recipe) else Recipe.load(recipe), tokens, seed, eval_tokens)
    if isinstance(rules.distil, ClipDistil):
        raise RecipeError(f"{rules.name}: distils a model of pictures and texts; {origin.name} is a language model")
    origin = rotated_source(origin) if rules.rotate else origin
    program = origin.model.text
    plan = rules.plan(program)
    clipped(origin.config, program, plan)  # these three refuse now what they would refuse after all the work
    origin.tokenizer_files()
    folder = checked_target(Path(out))
    _refuse_texts(rules, text, eval_text)
    if rules.distil is None:
        start = begin(origin, program, rules, plan, text, threads, step)
        quantized = start.tensors
    else:
        processes = Processes()
        with processes.first_goes_first():
            start = begin(origin, program, rules, plan, text, threads, step)
        runs = cache_dir() / "training"
        quantized = distil(origin, program, rules, plan, start.tensors, runs, step, watch, processes).tensors
        if not processes.first:
            return Report(folder, None if start.text is None else start.text.name, time.monotonic() - since, 0.0)
    errors = write(folder, origin, program, rules, plan, quantized, start.text, step)
    seconds = time.monotonic() - since
    rows, how = ((), "") if eval_tokens == 0 else _compared(origin, folder, rules, eval_text, threads, step)
    name = None if start.text is None else start.text.name
    return Report(folder, name, seconds, folder_mb(folder), rows, how, errors)


def _compared(
    origin: sources.Source,
    folder: Path,
    recipe: Recipe,
    text: str | Path | None,
    threads: int | None,
    step: Progress,
) -> tuple[tuple[Row, ...], str]:
    """The rows of original and packed model, which the card gets too, and how they were measured."""
    settings = recipe.evaluate
    chosen = choose(text or settings.text, "test", origin, settings.tokens, seed=EVALUATION_SEED)
    rows = compare_with_original(origin, {"packed": folder}, chosen, settings, threads, step)
    how = protocol(chosen, settings)
    append(folder, f"## Compared with the original\n\n{markdown(rows)}\n{how}\n")
    return rows, how


def _refuse_texts(recipe: Recipe, text: str | Path | None, eval_text: str | Path | None) -> None:
    refuse_unreadable(
        None if recipe.calibrate is None else text or recipe.calibrate.text,
        recipe.distil.text if isinstance(recipe.distil, Distil) else None,
        eval_text or recipe.evaluate.text,
    )


def _overridden(recipe: Recipe, tokens: int | None, seed: int | None, eval_tokens: int | None) -> Recipe:
    """The recipe with what the caller gave; a window is never longer than all the tokens."""
    fields = recipe.model_dump(mode="json")
    parts = (("calibrate", {"tokens": tokens, "seed": seed}), ("evaluate", {"tokens": eval_tokens or None}))
    for part, given in parts:
        if fields[part] is not None:
            fields[part] |= {key: value for key, value in given.items() if value is not None}
            fields[part]["context"] = min(fields[part]["context"], fields[part]["tokens"])
    return Recipe.parse(fields)
