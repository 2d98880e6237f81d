"""Does our program compute what transformers' own model computes? Asked of every source once, before any work.

A config that is misread gives a model that is quietly wrong, and where the "original" of a comparison is run by our own
program, no figure would show it. So both run on one short random input.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tercet.modules.ops import Buffers, run
from tercet.program import Program
from tercet.program.patches import patches
from tercet.sources import Source

__all__ = ["disagreement"]

SEED = 20260101
log = logging.getLogger(__name__)


@torch.no_grad()
def disagreement(source: Source, tokens: int = 16) -> float | None:
    """The largest difference between our results and transformers', relative to the largest of its results.

    A language model is given `tokens` random ids, an image-text model one picture of noise and one random text.
    Rounding alone gives 1e-6 to 1e-5; something misread rarely less than 1e-2. None, which is logged, where
    transformers has no class for the model: variants of CLIP that open_clip stores.

    Raises what `Source.tensors` and `Source.pretrained` raise.
    """
    if not source.in_transformers:
        log.warning("%s: transformers has no class for it, so its numbers are not compared with others", source.name)
        return None
    model, tensors, theirs = source.model, source.tensors(), source.pretrained()
    rng = np.random.default_rng(SEED)
    ids = torch.from_numpy(rng.integers(0, model.text.vocab_size, (1, min(tokens, model.text.context))))
    if model.kind == "text":
        wanted = theirs(input_ids=ids, use_cache=False).logits
        return _largest(_run(model.text, tensors, ids), wanted)
    ids = torch.from_numpy(rng.integers(0, model.text.vocab_size, (1, model.text.context)))
    picture = rng.normal(size=(1, 3, model.pixels.size, model.pixels.size)).astype(np.float32)
    text: Any = theirs.get_text_features(ids)  # type: ignore[operator]
    image: Any = theirs.get_image_features(torch.from_numpy(picture))  # type: ignore[operator]
    rows = torch.from_numpy(patches(picture, model.pixels.patch))
    return max(
        _largest(_run(model.text, tensors, ids), _embedding(text)),
        _largest(_run(model.image, tensors, rows), _embedding(image)),
    )


def _embedding(features: Any) -> Tensor:
    """Newer versions of transformers wrap it."""
    rows: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return rows[:, None]


def _run(program: Program, tensors: Mapping[str, NDArray[np.float32]], rows: Tensor) -> Tensor:
    buffers: Buffers = {program.reads: rows}
    for op in program.ops:
        names = [name for name in (op.weight, op.bias) if name]
        run(program, op, buffers, {name: torch.from_numpy(np.array(tensors[name], np.float32)) for name in names})
    return buffers[program.gives]


def _largest(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())
