"""Opens what a user names, a packed folder or a float source, as one thing that can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tercet.artifact import is_artifact
from tercet.evaluate.speed import Stepper
from tercet.evaluate.text import Logits
from tercet.runtime import Embedder, Engine, Tokenizer

__all__ = ["EngineModel", "Measurable", "open_embedder", "open_model"]


class EngineModel:
    """The engine as the evaluation sees every model: callable and `Stepper`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        return self.engine.logits(ids)

    def start(self) -> None:
        """Forgets the sequence."""
        self._sequence = self.engine.new_sequence()

    def step(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Appends ids: float32[vocab] after the last of them."""
        logits: NDArray[np.float32] = self.engine.step([(self._sequence, ids)])[0]
        return logits


@dataclass(frozen=True, eq=False)
class Measurable:
    """A model with its tokenizer.

    Attributes:
        logits: ids of a fresh sequence -> float32[n, vocab].
        stepper: the same model, sequence kept.
        tokenizer: text <-> ids.
        context: the longest sequence the model was made for.
        runs_on: "torch" or "engine".
    """

    logits: Logits
    stepper: Stepper
    tokenizer: Tokenizer
    context: int
    runs_on: str

    def prefix(self) -> list[int]:
        """What the tokenizer adds in front of a text: a BOS, or nothing."""
        return self.tokenizer.prefix()

    def encode(self, text: str) -> list[int]:
        """The text's ids, without what the tokenizer adds around it."""
        return self.tokenizer.encode(text, around=False)


def open_model(name: str | Path, *, threads: int | None = None) -> Measurable:
    """A packed folder opens in the engine; anything else is a source (`tercet.sources`) and opens in torch."""
    if is_artifact(Path(name)):
        return _packed(Path(name), threads)
    return _source(str(name), threads)


def _packed(folder: Path, threads: int | None) -> Measurable:
    engine = Engine.open(folder, threads=threads)
    model = EngineModel(engine)
    return Measurable(model, model, Tokenizer.open(folder), engine.context, "engine")


def _source(name: str, threads: int | None) -> Measurable:
    from tercet import sources
    from tercet.evaluate.originals import FloatModel, set_threads

    set_threads(threads)
    source = sources.resolve(name)
    model = FloatModel(source.pretrained())
    return Measurable(model, model, Tokenizer.open(source.folder), source.model.text.context, "torch")


def open_embedder(name: str | Path, *, threads: int | None = None) -> Embedder:
    """An image-text model: a packed folder opens in the engine, a source (`tercet.sources`) in torch."""
    if is_artifact(Path(name)):
        return Embedder.open(name, threads=threads)
    from tercet import sources
    from tercet.evaluate.originals import open_float, set_threads

    set_threads(threads)
    return open_float(sources.resolve(str(name)))
