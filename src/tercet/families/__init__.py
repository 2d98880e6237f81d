"""Model families: a transformers config in, a `Model` out. Torch-free; no weights are needed.

A new family is one file that says how its config's words map to a `DecoderSpec` or to `TowerSpec`s, and one line in
`FAMILIES`. Whatever would change the result and is not built raises ModelError rather than be ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from tercet.errors import ModelError
from tercet.families import (
    clip,
    cohere,
    ernie4_5,
    exaone4,
    gemma,
    gemma3,
    glm,
    gpt_neox,
    granite,
    helium,
    hunyuan,
    internlm3,
    llama,
    ministral,
    mistral,
    olmo,
    phi,
    phi3,
    qwen2,
    qwen3,
    seed_oss,
    siglip,
    smollm3,
    stablelm,
    starcoder2,
)
from tercet.families.family import Family
from tercet.families.multimodal import MULTIMODAL, text_config, text_part
from tercet.families.narrow import narrowed
from tercet.families.settings import Settings
from tercet.families.unused import refuse_unread
from tercet.program import Model

__all__ = ["FAMILIES", "MULTIMODAL", "model", "narrowed"]

FAMILIES: dict[str, Family] = {
    "llama": llama.FAMILY,
    "mistral": mistral.FAMILY,
    "qwen2": qwen2.FAMILY,
    "qwen3": qwen3.FAMILY,
    "gemma3_text": gemma3.FAMILY,
    "phi": phi.FAMILY,
    "cohere": cohere.FAMILY,
    "cohere2": cohere.FAMILY2,
    "ernie4_5": ernie4_5.FAMILY,
    "exaone4": exaone4.FAMILY,
    "gemma": gemma.FAMILY,
    "glm": glm.FAMILY,
    "glm4": glm.FAMILY4,
    "gpt_neox": gpt_neox.FAMILY,
    "granite": granite.FAMILY,
    "helium": helium.FAMILY,
    "hunyuan_v1_dense": hunyuan.FAMILY,
    "internlm3": internlm3.FAMILY,
    "ministral": ministral.FAMILY,
    "ministral3": ministral.FAMILY3,
    "olmo": olmo.FAMILY,
    "olmo2": olmo.FAMILY2,
    "olmo3": olmo.FAMILY3,
    "phi3": phi3.FAMILY,
    "qwen2_vl_text": qwen2.FAMILY,
    "qwen2_5_vl_text": qwen2.FAMILY,
    "qwen3_vl_text": qwen3.FAMILY,
    "seed_oss": seed_oss.FAMILY,
    "smollm3": smollm3.FAMILY,
    "stablelm": stablelm.FAMILY,
    "starcoder2": starcoder2.FAMILY,
    "clip": clip.FAMILY,
    "siglip": siglip.FAMILY,
}

# Keys that change what a model computes. Absent, null, false and 0 mean that the feature is off.
_REFUSED = {
    "attn_logit_softcapping": "capped attention scores are not supported",
    "final_logit_softcapping": "capped logits are not supported",
    "use_bidirectional_attention": "only causal attention is supported",
    "is_encoder_decoder": "only decoders are supported",
    "add_cross_attention": "cross attention is not supported",
    "num_experts": "mixtures of experts are not supported",
    "num_local_experts": "mixtures of experts are not supported",
    "n_routed_experts": "mixtures of experts are not supported",
    "quantization_config": "its weights are quantized already; give the original model",
    "compression_config": "its weights are quantized already; give the original model",
}


def model(config: Mapping[str, Any]) -> Model:
    """The model that a config describes.

    Args:
        config: what a transformers config.json holds, in the spelling of transformers 4 or 5; and under "tercet", what
            a packed model's linears have more (`tercet.families.transforms`).

    Raises ModelError where the model_type or a feature is not supported, or a value is missing or impossible.
    """
    settings = Settings(config, {})
    model_type = settings.raw("model_type")
    if model_type == "siglip2":
        raise ModelError("config.json: SigLIP 2's NaFlex variant is not supported; take one of a fixed picture size")
    if isinstance(model_type, str) and model_type in MULTIMODAL:
        return text_part(model(text_config(settings, MULTIMODAL[model_type])))
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise settings.error("model_type", f"a supported one, such as {', '.join(_near(model_type))}")
    family = FAMILIES[model_type]
    _refuse(settings, "config.json")
    for part in family.configs:
        _refuse(Settings(settings.part(part), {}), f"config.json: {part}")
    _check_architectures(settings, family.architecture)
    own = Settings(config, family.defaults, unused=family.unused)
    made = family.make(own)
    refuse_unread(own)
    return made


def _near(model_type: Any) -> list[str]:
    """Names of supported kinds that are like this one; the most common ones where none is."""
    name, known = str(model_type)[:40], [*FAMILIES, *MULTIMODAL]
    stem = re.split(r"[^a-z]", name)[0] or "?"
    return [each for each in known if each.startswith(stem)] or get_close_matches(name, known) or known[:5]


def _refuse(settings: Settings, where: str) -> None:
    for key, reason in _REFUSED.items():
        if settings.raw(key):
            raise ModelError(f"{where}: {key} is set, but {reason}")


def _check_architectures(settings: Settings, ending: str) -> None:
    names = settings.raw("architectures")
    if names is None or names == []:
        return
    if not isinstance(names, list) or not any(isinstance(name, str) and name.endswith(ending) for name in names):
        raise settings.error("architectures", f"one that ends with {ending}")
