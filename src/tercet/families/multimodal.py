"""Models that see pictures and write text: their language model alone, which is a decoder of another family.

What a checkpoint has beside it (towers, projectors) is left alone. Rotary positions in three axes (M-RoPE) are plain
ones where there is nothing but text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tercet.families.settings import Settings
from tercet.program import Model, Original

__all__ = ["MULTIMODAL", "Multimodal", "text_config", "text_part"]

ROOTS = ("model.language_model.", "language_model.model.", "language_model.", "model.text_model.", "model.")
BESIDE = (
    "vision_tower.", "vision_model.", "visual.", "multi_modal_projector.", "connector.", "image_newline",
    "model.vision_tower.", "model.vision_model.", "model.visual.", "model.multi_modal_projector.", "model.connector.",
    "model.image_newline",
)  # fmt: skip
OTHERS = (  # of the parts that are left out
    "vision_config", "perceiver_config", "pixel_shuffle_factor", "qk_layer_norms", "use_resampler",
    "neftune_noise_alpha",
)  # fmt: skip
LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "intermediate_size": 14336},
    "gemma3_text": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Multimodal:
    """A kind of such models.

    Attributes:
        text: the text part's model_type where the config does not say.
        tied: whether the head is the embedding where the config does not say.
        inner: whether the text part's own word for that counts as well.
        defaults: of the text part, where they are not its family's.
    """

    title: str
    text: str
    tied: bool = False
    inner: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)


MULTIMODAL = {
    "gemma3": Multimodal("Gemma 3 with pictures", "gemma3_text", tied=True),
    "idefics3": Multimodal("Idefics 3", "llama", defaults={"rms_norm_eps": 1e-5}),
    "llava": Multimodal("LLaVA", "llama", inner=True),
    "mistral3": Multimodal("Mistral 3 with pictures", "mistral", tied=True),
    "qwen2_vl": Multimodal("Qwen2-VL", "qwen2_vl_text", inner=True, defaults={"rope_theta": 1000000.0}),
    "qwen2_5_vl": Multimodal("Qwen2.5-VL", "qwen2_5_vl_text", inner=True, defaults={"rope_theta": 1000000.0}),
    "qwen3_vl": Multimodal("Qwen3-VL, dense", "qwen3_vl_text", defaults={"rope_theta": 500000.0}),
    "smolvlm": Multimodal("SmolVLM, SmolVLM 2", "llama", defaults={"rms_norm_eps": 1e-5}),
}


def text_config(settings: Settings, kind: Multimodal) -> dict[str, Any]:
    """The config of the language model, as if it stood alone. Older Qwen2-VL files have it at the top."""
    own = settings.part("text_config")
    if not own and settings.raw("hidden_size") is not None:
        own = {key: value for key, value in settings.values.items() if key != "model_type"}
    own = {key: value for key, value in own.items() if key not in OTHERS}
    text = str(own.get("model_type") or kind.text)
    made = {**SIZES.get(text, {}), **kind.defaults, **own, "model_type": text, "architectures": None}
    outer = settings.raw("tie_word_embeddings")
    made["tie_word_embeddings"] = (kind.tied if outer is None else outer) or (
        kind.inner and own.get("tie_word_embeddings", False)
    )
    made["tercet"] = settings.raw("tercet")
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(rope := made.get(key), Mapping) and "mrope" in (rope.get("type"), rope.get("rope_type")):
            made[key] = {**rope, "type": "default", "rope_type": "default"}
    return made


def text_part(model: Model) -> Model:
    """The language model with word of where a multimodal checkpoint has it."""
    return replace(model, original=Original(model.original.tensors, ROOTS, BESIDE))
