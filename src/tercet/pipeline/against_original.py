"""The table that a packed model ends with: itself beside the original, on the same tokens.

Quality in one pass over the windows (the original runs once for all), speed in interleaved rounds, memory in a process
of its own for each model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tercet import sources
from tercet.data.mixture import cut
from tercet.data.texts import Text
from tercet.evaluate.contents import contents
from tercet.evaluate.footprint import Footprint, footprint
from tercet.evaluate.kinds import compare_kinds, kinds_of, scores
from tercet.evaluate.models import Measurable, open_model
from tercet.evaluate.rows import Row
from tercet.evaluate.speed import Speed, speeds
from tercet.progress import Progress
from tercet.recipe import Evaluate

__all__ = ["Rounds", "compare_with_original", "original_size", "protocol"]

ORIGINAL = "original"


@dataclass(frozen=True)
class Rounds:
    """How speed is measured: tokens of the prompt, tokens after it, rounds; threads, of torch and of the engine."""

    prefill: int = 256
    decode: int = 32
    rounds: int = 3
    threads: int | None = None


def compare_with_original(
    source: sources.Source,
    folders: Mapping[str, Path],
    text: Text,
    settings: Evaluate,
    progress: Progress,
    rounds: Rounds = Rounds(),
) -> tuple[Row, ...]:
    """Rows of the original (torch, float32) and of each packed folder (engine), by the names of `folders`.

    The original's size is that of its weights in 16 bits, as models are published, and its tokenizer.
    """
    memory = _footprints({ORIGINAL: source.folder, **folders}, rounds.threads, progress)
    models = {ORIGINAL: open_model(source.folder, threads=rounds.threads)}
    models |= {name: open_model(folder, threads=rounds.threads) for name, folder in folders.items()}
    first = models[ORIGINAL]
    context = min(settings.context, *(model.context for model in models.values()))
    cuts = kinds_of(cut(text, first.encode, context, first.prefix()), settings.tokens)
    logits = {name: model.logits for name, model in models.items()}
    by_kind = compare_kinds(logits, cuts, first.logits, lambda i, n: progress("evaluate windows", i, n))
    paces = _speeds(models, rounds, context, progress)
    rows = []
    for name in models:
        size, bits = _packed_size(folders[name]) if name in folders else original_size(source)
        pace = paces[name]
        rows.append(
            Row(
                name=name,
                scores=scores(by_kind, name, ORIGINAL),
                file_mb=size,
                resident_mb=memory[name].resident_mb,
                prefill_tokens_per_s=pace.prefill_tokens_per_s,
                decode_tokens_per_s=pace.decode_tokens_per_s,
                bits_per_weight=bits,
                runs_on=models[name].runs_on,
            )
        )
    return tuple(rows)


def protocol(text: Text, settings: Evaluate) -> str:
    first, *others = text.parts
    kinds = (
        f", {first}; mean and worst of the kinds are times the original's perplexity, on half as many tokens of each of"
        f" the others: {', '.join(others)}"
    )
    return (
        f"Perplexity, KL(original || model) and top-1 agreement on at most {settings.tokens} tokens of"
        f" {text.name}{kinds if others else ''}: non-overlapping windows of {settings.context} from all over it, no BOS"
        " unless the tokenizer adds one, a window's first token unscored. MB are 10^6 bytes; the original's size is"
        " that of 16-bit weights. Memory is the growth of the process by opening the model and running 128 tokens, KV"
        " cache not counted. Speeds are medians."
    )


def _footprints(places: Mapping[str, Path], threads: int | None, progress: Progress) -> dict[str, Footprint]:
    """Taken before this process opens any model: PSS counts a mapped page by halves where two processes map it."""
    found = {}
    for done, (name, place) in enumerate(places.items(), start=1):
        found[name] = footprint(place, threads)
        progress("measure memory", done, len(places))
    return found


def _speeds(models: Mapping[str, Measurable], rounds: Rounds, context: int, progress: Progress) -> dict[str, Speed]:
    decode = min(rounds.decode, context // 2)
    return speeds(
        {name: model.stepper for name, model in models.items()},
        prefill=min(rounds.prefill, context - decode),
        decode=decode,
        rounds=rounds.rounds,
        progress=lambda i, n: progress("time rounds", i, n),
    )


def _packed_size(folder: Path) -> tuple[float, float]:
    """MB of the folder, and bits a weight."""
    inside = contents(folder)
    return inside.file_mb, inside.bits_per_weight


def original_size(source: sources.Source) -> tuple[float, float]:
    """MB of 16-bit weights and the tokenizer, and bits a weight."""
    weights = source.model.text.weights.values()
    tokenizer = sum(len(data) for data in source.tokenizer_files().values())
    return (2 * sum(math.prod(weight.shape) for weight in weights) + tokenizer) / 1e6, 16.0
