"""Tiny random models of pictures and texts, made by transformers itself: as `tiny`, for two towers.

Weights are drawn so that attention is peaked, norms and biases are random, logits have a standard deviation above 1,
and MLPs run where GELUs differ, below 0. Shapes are awkward on purpose: towers of different widths, a picture whose
last pixels fill no patch.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModel, PreTrainedModel

import tiny
from tercet import families
from tercet.program import Model, Program
from tercet.sources.views import views

__all__ = [
    "END", "FAMILIES", "config", "draw", "model", "peak", "pixels", "reference", "save_folder", "texts", "with_part",
]  # fmt: skip

END = 90  # the id of a text's end; larger ones exist
TEXT = {
    "vocab_size": 99,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 14,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": 1,
}
VISION = {
    "hidden_size": 64,
    "intermediate_size": 144,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 8,
}
FAMILIES: dict[str, dict[str, Any]] = {"clip": {"projection_dim": 40}, "siglip": {}}
TEXT_OF = {"clip": {}, "siglip": {"projection_size": VISION["hidden_size"]}}


def config(family: str, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None) -> dict[str, Any]:
    """What config.json of such a model holds; `text` and `vision` are added to the towers' configs."""
    parts = {"text_config": {**TEXT, **TEXT_OF[family], **(text or {})}, "vision_config": {**VISION, **(vision or {})}}
    made = AutoConfig.for_model(family, **FAMILIES[family], **parts)
    made.architectures = [AutoModel._model_mapping[type(made)].__name__]
    return json.loads(json.dumps(made.to_dict()))


def model(
    family: str, seed: int = 0, **parts: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any], dict[str, NDArray[np.float32]]]:
    """The transformers model (float32, eval, eager attention), its config dict, its tensors as our towers take them."""
    settings = config(family, **parts)
    made = AutoModel.from_config(AutoConfig.for_model(**settings), attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(draw(name, parameter, generator))
    state = {name: value.numpy().copy() for name, value in made.state_dict().items()}
    tensors = dict(views(families.model(settings), state))
    return made.eval(), settings, tensors


def draw(name: str, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random values for a parameter, of a size that its name decides."""
    noise = torch.randn(like.shape, generator=generator)
    if name in ("logit_scale", "logit_bias"):
        return torch.full(like.shape, {"logit_scale": 3.5, "logit_bias": -7.25}[name])
    if name.endswith(("proj", "text_projection")):  # open_clip's, [in, out]
        return noise * len(like) ** -0.5
    if ("embedding" in name and "patch" not in name) or "probe" in name:
        return noise
    if like.dim() >= 2:
        gain = 4.0 if "fc2" in name else 2.0 if any(part in name for part in ("q_proj", "k_proj", "in_proj")) else 1.0
        return noise * (gain * like[0].numel() ** -0.5)
    if name.endswith("bias"):
        return noise * 0.3 - (1.5 if "fc1" in name else 0)
    return 0.5 + torch.rand(like.shape, generator=generator)


def with_part(model: Model, part: str, program: Program) -> Model:
    """The model with another program for its "image" or "text"."""
    return replace(model, parts={**model.parts, part: program})


def save_folder(path: Path, family: str, **parts: dict[str, Any]) -> Path:
    """A folder as transformers writes it, with a tokenizer and a processor's settings. Returns it."""
    model(family, **parts)[0].save_pretrained(path)
    tiny.tokenizer().save(str(path / "tokenizer.json"))
    (path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": VISION["image_size"]}}))
    return path


def pixels(count: int = 5, size: int = VISION["image_size"], seed: int = 0) -> NDArray[np.float32]:
    """float32[count, 3, size, size] random pictures, as a processor would have normalised them."""
    return np.random.default_rng(seed).normal(size=(count, 3, size, size)).astype(np.float32)


def texts(count: int = 6, length: int = TEXT["max_position_embeddings"], seed: int = 0) -> NDArray[np.int64]:
    """int64[count, length] random texts: each has END somewhere after its first token, and larger ids too."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, TEXT["vocab_size"], (count, length))
    ids[np.arange(count), rng.integers(1, length, count)] = END
    return ids


def reference(
    made: PreTrainedModel, pictures: NDArray[np.float32], ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Transformers' own image embeddings, text embeddings, and logits [pictures, texts]."""
    with torch.no_grad():
        image = made.get_image_features(torch.from_numpy(pictures)).pooler_output
        text = made.get_text_features(torch.from_numpy(ids)).pooler_output
        logits = made(input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pictures)).logits_per_image
    return image.numpy(), text.numpy(), logits.numpy()


def peak(made: PreTrainedModel, pictures: NDArray[np.float32], ids: NDArray[np.int64]) -> tuple[float, float]:
    """The largest attention weight of a row, averaged over layers, heads and rows: of pictures, and of texts from
    their fifth token on."""
    with torch.no_grad():
        image = made.vision_model(torch.from_numpy(pictures), output_attentions=True).attentions
        text = made.text_model(torch.from_numpy(ids), output_attentions=True).attentions
    return (
        float(torch.stack(image).max(-1).values.mean()),
        float(torch.stack(text)[..., 4:, :].max(-1).values.mean()),
    )
