"""What all rows of a comparison are measured on: the same windows of a test text, beside the same original.

The original's logits are computed once and lie on the disk, 4 bytes a token and entry of the vocabulary (0.8 GB for
4,096 tokens of SmolLM2's 49,152). Learning rates are chosen on another text, the validation split: the test split
chooses nothing.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import fsio, sources
from tercet.data import spread, windows
from tercet.data.texts import Text
from tercet.evaluate import quality
from tercet.evaluate.contents import contents
from tercet.evaluate.models import EngineModel
from tercet.evaluate.originals import FloatModel
from tercet.evaluate.text import Logits
from tercet.progress import Progress
from tercet.recipe import Evaluate
from tercet.runtime import Engine, Tokenizer

__all__ = ["Exam"]


class Exam:
    """Attributes: test, validation: int64[n, context]; identity: what of it decides a result, plain JSON.

    Args:
        texts: the test text and the validation text.
        work: folder for the original's logits.
        threads: of the engine.
    """

    def __init__(
        self,
        source: sources.Source,
        settings: Evaluate,
        texts: tuple[Text, Text],
        work: Path,
        threads: int | None,
        step: Progress,
    ) -> None:
        self.source, self.settings, self.work, self.threads, self.step = source, settings, work, threads, step
        tokenizer = Tokenizer.open(source.folder)
        prefix = tokenizer.prefix()
        program = source.model.text
        context, self.linears = min(settings.context, program.context), set(program.linears)
        self.test, self.validation = (
            spread(windows(tokenizer.encode(text.content, around=False), context, prefix=prefix), settings.tokens)
            for text in texts
        )
        self.identity = {"test": _digest(self.test), "validation": _digest(self.validation)}
        self._original: Logits | None = None

    def packed(self, folder: Path) -> dict[str, Any]:
        """What the table says of a packed folder, run by the engine."""
        inside = contents(folder)
        linears = [tensor for tensor in inside.tensors if tensor.name in self.linears]
        return {
            **self.quality(EngineModel(Engine.open(folder, threads=self.threads))),
            # Of all the blocks' matrices, so that one kept in more bits counts as what it is.
            "bits_per_linear_weight": 8 * sum(t.bytes for t in linears) / sum(t.weights for t in linears),
            "bits_per_weight": inside.bits_per_weight,
            "zero_share": inside.zero_share,
            "file_mb": inside.file_mb,
            "runs_on": "engine",
        }

    def validated(self, folder: Path) -> float:
        """The perplexity of a packed folder on the validation text."""
        return quality(EngineModel(Engine.open(folder, threads=self.threads)), self.validation).perplexity

    def quality(self, model: Logits) -> dict[str, Any]:
        """Perplexity, KL and top-1 agreement with the original, on the test text."""
        found = quality(model, self.test, self.original, lambda i, n: self.step("evaluate windows", i, n))
        return {"perplexity": found.perplexity, "kl": found.kl, "top1_agreement": found.top1_agreement}

    @property
    def original(self) -> Logits:
        """The original's logits on the windows of the test text."""
        if self._original is None:
            path = self.work / f"original-{_digest(self.test, str(self.source.origin))}.npy"
            if not path.exists():
                fsio.atomic_file(path, self._logits())
            rows = np.load(path, mmap_mode="r", allow_pickle=False)
            places = {ids.tobytes(): index for index, ids in enumerate(self.test)}
            self._original = lambda ids: rows[places[ids.tobytes()]]
        return self._original

    def _logits(self) -> Iterator[Any]:
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


def _digest(cut: NDArray[np.int64], more: str = "") -> str:
    return hashlib.sha256(f"{cut.shape} {more}".encode() + np.ascontiguousarray(cut).tobytes()).hexdigest()[:32]
