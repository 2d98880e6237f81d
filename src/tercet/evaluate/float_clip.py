"""A float model of two towers in torch, for `Embedder`: what a packed one is compared with.

It runs the operations of the family's own program on the source's float32 weights, so CLIP, SigLIP and open_clip's
checkpoints are one thing here; that program against transformers' own model is what the families' tests compare.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from tercet.modules.ops import Buffers, run
from tercet.program import Model, Program
from tercet.program.patches import patches
from tercet.runtime.pictures.captions import CaptionTokenizer
from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.pictures.preprocess import Preprocessor
from tercet.sources import Source

__all__ = ["FloatEncoder", "open_float"]


class FloatEncoder:
    """Two programs over float32 tensors."""

    def __init__(self, towers: Model, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        self._towers = towers
        self._weights = {name: torch.from_numpy(np.array(tensors[name], np.float32)) for name in towers.weights}
        self.dim = towers.image.widths["embedding"]
        self.image_size = (towers.pixels.size, towers.pixels.size)
        self.context = towers.text.context
        self.logit_scale = float(self._weights[towers.scale].exp())
        self.logit_bias = float(self._weights[towers.bias]) if towers.bias else 0.0

    def encode_pixels(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, dim] of float32[n, 3, h, w]."""
        return self._run(self._towers.image, torch.from_numpy(patches(pixels, self._towers.pixels.patch)))

    def encode_ids(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """float32[n, dim] of int64[n, context]."""
        return self._run(self._towers.text, torch.from_numpy(ids))

    def _run(self, program: Program, rows: torch.Tensor) -> NDArray[np.float32]:
        buffers: Buffers = {program.ops[0].inputs[0]: rows}
        with torch.inference_mode():
            for op in program.ops:
                run(program, op, buffers, self._weights)
        return np.asarray(buffers["embedding"][:, 0].numpy(), np.float32)


def open_float(source: Source) -> Embedder:
    """The model of a source, reading pictures and texts as a folder packed from it does.

    Raises ModelError where it has not two towers, FormatError where it does not say how pictures are prepared.
    """
    encoder = FloatEncoder(source.model.expect("pair"), source.tensors())
    labels = CaptionTokenizer.open(source.folder, encoder.context)
    return Embedder(encoder, Preprocessor.from_config(source.preprocessor()), labels, source.name, source.fingerprint)
