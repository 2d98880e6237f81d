"""Language models: perplexity, KL and top-1 agreement on the same windows of a test text, beside the same original.

The original's logits are computed once and lie on the disk, 4 bytes a token and entry of the vocabulary (0.8 GB for
4,096 tokens of SmolLM2's 49,152).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio
from tercet.compare.exam import COSTS, Headline, Measured
from tercet.compare.settings import Settings
from tercet.data import spread
from tercet.data.mixture import cut, evenly
from tercet.data.texts import Text, choose
from tercet.evaluate import quality
from tercet.evaluate.models import EngineModel
from tercet.evaluate.originals import FloatModel, ModuleLogits
from tercet.evaluate.text import Logits
from tercet.pipeline.against_original import original_size
from tercet.pipeline.lessons.text import EVALUATION_SEED
from tercet.progress import Progress
from tercet.recipe import Recipe
from tercet.runtime import Engine, Tokenizer
from tercet.sources import Source

__all__ = ["TextExam"]


class TextExam:
    """See `tercet.compare.exam.Exam`. Attributes: test, validation: int64[n, context].

    Args:
        first: the recipe whose `evaluate` holds where `settings` say nothing.
        work: folder for the original's logits.
    """

    headline = Headline("perplexity", less=True)
    shown: Sequence[str] = ("perplexity", "kl", "top1_agreement")
    chooses = True

    def __init__(self, source: Source, settings: Settings, first: Recipe, work: Path, step: Progress) -> None:
        self.source, self.work, self.threads, self.step = source, work, settings.threads, step
        self.data = settings.data
        evaluate = first.changed(eval_tokens=settings.eval_tokens).evaluate
        test = choose(self.data.eval_text or evaluate.text, "test", source, evaluate.tokens, EVALUATION_SEED)
        wanted = settings.validation_text or "default"
        validation = choose(wanted, "validation", source, evaluate.tokens, EVALUATION_SEED + 1)
        tokenizer = Tokenizer.open(source.folder)
        context, prefix = min(evaluate.context, source.model.text.context), tokenizer.prefix()

        def cuts(text: Text) -> dict[str, NDArray[np.int64]]:
            return cut(text, lambda content: tokenizer.encode(content, around=False), context, prefix)

        self.test = spread(next(iter(cuts(test).values())), evaluate.tokens)
        self.validation = evenly(cuts(validation), evaluate.tokens)
        self.identity: Mapping[str, Any] = {"test": _digest(self.test), "validation": _digest(self.validation)}
        self.protocol = self._protocol(test, validation)

    @cached_property
    def original(self) -> Mapping[str, Any]:
        size, bits = original_size(self.source)
        perplexity = quality(self._original, self.test).perplexity
        return {"scores": {"perplexity": perplexity}, "file_mb": size, "bits_per_weight": bits, "runs_on": "torch"}

    def scores(self, model: Measured) -> dict[str, float]:
        found = quality(
            self._logits(model), self.test, self._original, lambda i, n: self.step("evaluate windows", i, n)
        )
        return {"perplexity": found.perplexity, "kl": found.kl or 0.0, "top1_agreement": found.top1_agreement or 0.0}

    def validated(self, model: Measured) -> float:
        return quality(self._logits(model), self.validation).perplexity

    def of_journal(self, evaluation: Mapping[str, float]) -> float:
        return evaluation["perplexity"]

    def _logits(self, model: Measured) -> Logits:
        if isinstance(model, Path):
            return EngineModel(Engine.open(model, threads=self.threads))
        return ModuleLogits(model)

    @cached_property
    def _original(self) -> Logits:
        """The original's logits on the windows of the test text."""
        path = self.work / f"original-{_digest(self.test, str(self.source.origin))}.npy"
        if not path.exists():
            fsio.atomic_file(path, self._answers())
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
        places = {ids.tobytes(): index for index, ids in enumerate(self.test)}
        return lambda ids: rows[places[ids.tobytes()]]

    def _answers(self) -> Iterator[Any]:
        """The .npy file, a window after another."""
        model = FloatModel(self.source.pretrained())
        for index, ids in enumerate(self.test):
            logits = np.ascontiguousarray(model(ids))
            if not index:
                header = io.BytesIO()
                facts = {"descr": "<f4", "fortran_order": False, "shape": (len(self.test), *logits.shape)}
                np.lib.format.write_array_header_2_0(header, facts)
                yield header.getvalue()
            yield logits
            self.step("ask the original", index + 1, len(self.test))

    def _protocol(self, test: Text, validation: Text) -> str:
        return (
            f"Perplexity, KL(original || model) and top-1 agreement on {self.test.size} tokens of {test.name}:"
            f" non-overlapping windows of {self.test.shape[1]} from all over it, no BOS unless the tokenizer adds one,"
            " a window's first token unscored; packed models by the engine, the original by torch; in brackets how many"
            " times the original's. Learning rates are chosen by the perplexity on"
            f" {self.validation.size} tokens of {validation.name} after a quarter of the steps. {COSTS} The original's"
            " MB are those of 16-bit weights."
        )


def _digest(cut: NDArray[np.int64], more: str = "") -> str:
    return hashlib.sha256(f"{cut.shape} {more}".encode() + np.ascontiguousarray(cut).tobytes()).hexdigest()[:32]
