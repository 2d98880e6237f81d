"""`tercet demo`: SmolLM2-135M made ternary and binary in several ways, all beside the original in one table.

Resumable: a model whose folder is there, made by the same recipe from the same source, is not made again; of one that
was interrupted, the blocks already calibrated are kept in the cache.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tercet import fsio, sources
from tercet.data.texts import choose
from tercet.demo.made import same
from tercet.demo.page import page
from tercet.evaluate.machine import machine
from tercet.pipeline import Data, Watch, quantize
from tercet.pipeline.against_original import Rounds, compare_with_original, protocol
from tercet.progress import Progress, silent
from tercet.recipe import Evaluate, Recipe
from tercet.runtime import Engine, Sampling, Tokenizer

__all__ = ["MODELS", "demo"]

SOURCE = "smollm2"
EVALUATE = Evaluate(tokens=4096, context=512)
PROMPT = "The Moon is"
SAMPLED = ("int8", "ternary, calibrated", "ternary, distilled")
BEST = "hour"  # the recipe that goes on from there
BINARY_TOKENS = 16384  # fewer than the ternary model's: a third of the time


def _rounded() -> Recipe:
    rules = [{"quantizer": "absmean"}, {"role": ["embedding", "head"], "keep": "int8"}]
    return Recipe.parse({"name": "absmean", "rules": rules, "calibrate": None})


def _binary() -> Recipe:
    fields = Recipe.load("w1-binary").model_dump(mode="json")
    fields["calibrate"]["tokens"] = BINARY_TOKENS
    return Recipe.parse(fields)


MODELS: dict[str, Callable[[], Recipe]] = {
    "int8": lambda: Recipe.parse({"name": "int8", "rules": [{"keep": "int8"}], "calibrate": None}),
    "ternary, rounded (absmean)": _rounded,
    "binary, calibrated": _binary,
    "ternary, calibrated": lambda: Recipe.load("w1.58"),
    "ternary, distilled": lambda: Recipe.load("quick"),  # begins with the blocks of the one before
}


def demo(out: Path, *, threads: int | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Makes and measures all of `MODELS`; writes out/models/*, out/results.json and out/report.html.

    Returns rows, samples, protocol, machine, seconds in all and those of making each model that was not there yet, the
    path of the report, and what training reaches.
    """
    begin = time.monotonic()
    step = progress or silent
    source = sources.resolve(SOURCE)
    text = choose("default", "test", source, EVALUATE.tokens)
    folders = {name: out / "models" / _slug(name) for name in MODELS}
    seconds: dict[str, float] = {}
    for done, (name, recipe) in enumerate(MODELS.items()):
        step("models", done, len(MODELS))
        if not same(source, folders[name], recipe()):
            made = quantize(source, folders[name], recipe(), Data(examine=False), threads=threads, watch=Watch(step))
            seconds[name] = made.seconds
    step("models", len(MODELS), len(MODELS))
    rows = compare_with_original(source, folders, text, EVALUATE, step, Rounds(256, 64, 3, threads))
    samples = {name: _sample(folders[name], threads) for name in SAMPLED}
    result: dict[str, Any] = {
        "rows": [row.as_dict() for row in rows],
        "samples": samples,
        "protocol": protocol(text, EVALUATE),
        "machine": machine(),
        "command": "tercet demo",
        "date": time.strftime("%Y-%m-%d"),
        "seconds_to_make": seconds,
        "seconds": time.monotonic() - begin,
        "reachable": {
            "description": Recipe.load(BEST).description,
            "command": f"tercet quantize {SOURCE} -o out/best --recipe {BEST}",
        },
        "report": str(out / "report.html"),
    }
    title = "SmolLM2-135M in one and two bits"
    report = page(title, rows, result["protocol"], samples, result["machine"])
    fsio.atomic_file(out / "report.html", report.encode())
    fsio.atomic_file(out / "results.json", (json.dumps(result, indent=2) + "\n").encode())
    return result


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def _sample(folder: Path, threads: int | None) -> dict[str, str]:
    """A prompt and how the model goes on, by the engine."""
    engine, tokenizer = Engine.open(folder, threads=threads), Tokenizer.open(folder)
    sampling = Sampling(repetition_penalty=1.2, max_tokens=48)
    ids = list(engine.generate(tokenizer.encode(PROMPT), sampling, tokenizer.eos_ids))
    return {"prompt": PROMPT, "text": tokenizer.decode(ids)}
