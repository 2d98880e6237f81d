"""Float models in torch, as the evaluation sees every model: transformers' own, and our programs as modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tercet.evaluate.exam import Exam, scored
from tercet.evaluate.rows import Row
from tercet.modules.module import ProgramModule
from tercet.program.patches import patches
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.preprocess import Preprocessor
from tercet.sources import Source

__all__ = ["FloatModel", "ModuleEncoder", "ModuleLogits", "open_float", "original_row", "set_threads", "validation"]

Floats = NDArray[np.float32]


class FloatModel:
    """transformers' model. Callable: ids int64[n] of a fresh sequence -> float32[n, vocab]. It is used as it is, in
    eval mode."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def __call__(self, ids: NDArray[np.int64]) -> Floats:
        with torch.inference_mode():
            logits = self.model(input_ids=torch.from_numpy(np.array(ids))[None], use_cache=False).logits
        result: Floats = logits[0].float().numpy()
        return result

    def start(self) -> None:
        """Forgets the sequence; `step` starts a new one."""
        self._cache: Any = None

    def step(self, ids: NDArray[np.int64]) -> Floats:
        """Appends ids to the sequence: float32[vocab] after the last of them."""
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(np.array(ids))[None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        result: Floats = output.logits[0, -1].float().numpy()
        return result


class ModuleLogits:
    """A language model's module, such as a student. Callable: ids int64[n] -> float32[n, vocab]."""

    def __init__(self, module: ProgramModule) -> None:
        self.module = module

    @torch.no_grad()
    def __call__(self, ids: NDArray[np.int64]) -> Floats:
        weight, bias = self.module.head()
        rows = torch.from_numpy(np.array(ids))[None].to(weight.device)
        logits = F.linear(self.module("text", rows).result[0], weight, bias)
        result: Floats = logits.float().cpu().numpy()
        return result


class ModuleEncoder:
    """An image-text model's module as a `tercet.runtime.pictures.embedder.PairEncoder`."""

    def __init__(self, module: ProgramModule) -> None:
        self.module = module
        model = module.description
        self.dim = model.image.widths["embedding"]
        self.image_size = (model.pixels.size, model.pixels.size)
        self.context = model.text.context
        with torch.no_grad():
            self.logit_scale = float(module.scale)
            self.logit_bias = 0.0 if module.bias is None else float(module.bias)

    def encode_pixels(self, pixels: Floats) -> Floats:
        """float32[n, dim] of float32[n, 3, h, w]."""
        return self._encode("image", torch.from_numpy(patches(pixels, self.module.description.pixels.patch)))

    def encode_ids(self, ids: NDArray[np.int64]) -> Floats:
        """float32[n, dim] of int64[n, length]."""
        return self._encode("text", torch.from_numpy(ids))

    @torch.no_grad()
    def _encode(self, part: str, rows: torch.Tensor) -> Floats:
        found: Floats = self.module(part, rows).result.numpy()
        return found


def open_float(source: Source) -> Embedder:
    """The image-text model of a source, reading pictures and texts as a folder packed from it does.

    Raises ModelError where it is another kind of model, FormatError where it does not say how pictures are prepared.
    """
    encoder = ModuleEncoder(ProgramModule(source.model.expect("pair"), source.tensors()).eval())
    captions = CaptionTokenizer.open(source.folder, encoder.context, source.tokenizer_settings())
    return Embedder(encoder, Preprocessor.from_config(source.preprocessor()), captions, source.name, source.fingerprint)


def original_row(source: Source, exams: Sequence[Exam], module: ProgramModule | None = None) -> Row:
    """The original in torch, float32; with `module`, what it has been trained to."""
    made = module or ProgramModule(source.model, source.tensors())
    weights = sum(4 * int(np.prod(weight.shape)) for weight in source.model.weights.values())
    return Row(
        name="original" if module is None else "original, trained on",
        runs_on="torch",
        file_mb=(weights + sum(map(len, source.tokenizer_files().values()))) / 1e6,
        bits_per_weight=32.0,
        scores=validation(exams)(made.eval()),
        ternary_share=0.0,
    )


def validation(exams: Sequence[Exam]) -> Callable[[ProgramModule], Mapping[str, float]]:
    """{"<exam> <metric>": share} of a module, in torch: for journals, and for what is not packed."""

    def measured(module: ProgramModule) -> Mapping[str, float]:
        encoder = ModuleEncoder(module)
        return scored(exams, encoder.encode_pixels, encoder.encode_ids)

    return measured


def set_threads(threads: int | None) -> None:
    """Threads of torch in this process; None leaves its own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
