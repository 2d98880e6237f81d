"""Tensors of open_clip's CLIP by transformers' names.

    visual.transformer.resblocks.3.mlp.c_fc.weight    -> vision_model.encoder.layers.3.mlp.fc1.weight
    transformer.resblocks.0.attn.in_proj_weight       -> text_model.encoder.layers.0.self_attn.in_proj_weight
    visual.proj, text_projection [width, dim]         -> transposed: linears are [out, in]

q, k and v of a block stay one matrix here; `tercet.sources.views` parts them. Some checkpoints put `text.` in front of
what belongs to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from tercet.errors import FormatError
from tercet.sources.tensors import Tensors

__all__ = ["Renamed", "renamed"]

Floats = NDArray[np.float32]

PLAIN = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
}
MODULES = {
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection",  # a linear where it has a bias, and then not transposed
}
IN_BLOCKS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
BLOCK = re.compile(r"(visual\.|)transformer\.resblocks\.(0|[1-9][0-9]{0,3})\.(.+)")
TRANSPOSED = ("visual.proj", "text_projection")
IGNORED = ("attn_mask",)  # a buffer that some versions store


def renamed(stored: Tensors, where: str) -> Renamed:
    """Each tensor by transformers' name, looked up when it is asked for.

    Raises FormatError for a tensor that such a CLIP does not have: it would compute something else.
    """
    names: dict[str, tuple[str, bool]] = {}
    for name in stored:
        plain = name.removeprefix("text.")
        if plain in IGNORED:
            continue
        target = _target(plain)
        if target is None or target in names:
            what = "stored twice" if target else "none of a CLIP as open_clip has it; this variant is not supported"
            raise FormatError(f"{where}: tensor {name[:80]!r} is {what}")
        names[target] = (name, plain in TRANSPOSED)
    return Renamed(stored, names)


def _target(name: str) -> str | None:
    if name in PLAIN:
        return PLAIN[name]
    if not (block := BLOCK.fullmatch(name)):
        return _of_module(name, MODULES)
    visual, index, rest = block.groups()
    inner = f"self_attn.{rest[5:]}" if rest in ("attn.in_proj_weight", "attn.in_proj_bias") else None
    inner = inner or _of_module(rest, IN_BLOCKS)
    return inner and f"{'vision' if visual else 'text'}_model.encoder.layers.{index}.{inner}"


def _of_module(name: str, modules: Mapping[str, str]) -> str | None:
    module, _, parameter = name.rpartition(".")
    return f"{modules[module]}.{parameter}" if module in modules and parameter in ("weight", "bias") else None


class Renamed(Mapping[str, Floats]):
    """Tensors by other names; see `renamed`."""

    def __init__(self, stored: Tensors, names: Mapping[str, tuple[str, bool]]) -> None:
        self._stored, self._names = stored, names

    def __getitem__(self, name: str) -> Floats:
        stored, transposed = self._names[name]
        values = self._stored[stored]
        return np.ascontiguousarray(values.T) if transposed else values

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = self._stored.shapes
        return {
            name: shapes[stored][::-1] if transposed else shapes[stored]
            for name, (stored, transposed) in self._names.items()
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
