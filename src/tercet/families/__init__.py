"""Model families: a transformers config in, a `Program` out, or the two of a CLIP. Torch-free; no weights are needed.

A new decoder family is one file that says how its config's words map to a `DecoderSpec`, and one line in `_FAMILIES`;
a model of pictures and texts has two `TowerSpec`s, and a line in `_TOWERS`.
Whatever would change the result and is not built raises ModelError rather than be ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tercet.errors import ModelError
from tercet.families import clip, gemma3, llama, mistral, phi, qwen2, qwen3, siglip
from tercet.families.decoder import DecoderSpec, build
from tercet.families.narrow import narrowed
from tercet.families.settings import Settings
from tercet.families.transforms import read_transforms
from tercet.program import Program, Towers

__all__ = ["SUPPORTED", "SUPPORTED_TOWERS", "narrowed", "program", "towers"]

_FAMILIES: dict[str, tuple[str, Mapping[str, Any], Callable[[Settings], DecoderSpec]]] = {
    "llama": ("Llama, SmolLM2, and other models of this architecture", llama.DEFAULTS, llama.spec),
    "mistral": ("Mistral", mistral.DEFAULTS, mistral.spec),
    "qwen2": ("Qwen2, Qwen2.5", qwen2.DEFAULTS, qwen2.spec),
    "qwen3": ("Qwen3, dense", qwen3.DEFAULTS, qwen3.spec),
    "gemma3_text": ("Gemma 3, text only", gemma3.DEFAULTS, gemma3.spec),
    "phi": ("Phi-1, Phi-1.5, Phi-2, moondream's text model", phi.DEFAULTS, phi.spec),
}

SUPPORTED: dict[str, str] = {model_type: family[0] for model_type, family in _FAMILIES.items()}

_TOWERS: dict[str, tuple[str, Mapping[str, Any], Callable[[Settings], Towers], str]] = {
    "clip": ("CLIP", clip.DEFAULTS, clip.towers, "CLIPModel"),
    "siglip": ("SigLIP, and SigLIP 2 of a fixed picture size", {}, siglip.towers, "SiglipModel"),
}

SUPPORTED_TOWERS: dict[str, str] = {model_type: family[0] for model_type, family in _TOWERS.items()}

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


def program(config: Mapping[str, Any]) -> Program:
    """The program of a model.

    Args:
        config: what a transformers config.json holds, in the spelling of transformers 4 or 5; and under "tercet", what
            a packed model's linears have more (`tercet.families.transforms`).

    Raises ModelError where the model_type or a feature is not supported, or a value is missing or impossible.
    """
    settings = Settings(config, {})
    model_type = settings.raw("model_type")
    if isinstance(model_type, str) and model_type in SUPPORTED_TOWERS:
        use = "tercet embed, index, search and eval --dataset are for it"
        raise ModelError(f"config.json: {model_type} is a model of pictures and texts, not of language; {use}")
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise settings.error("model_type", "a supported one: " + ", ".join(SUPPORTED))
    _refuse(settings, "config.json")
    _check_architectures(settings, "ForCausalLM", "a causal language model (...ForCausalLM)")
    _, defaults, spec = _FAMILIES[model_type]
    made = spec(Settings(config, defaults))
    return build(made, read_transforms(settings, made.shape.layers))


def towers(config: Mapping[str, Any]) -> Towers:
    """The two towers of a model of pictures and texts; config and errors as for `program`."""
    settings = Settings(config, {})
    model_type = settings.raw("model_type")
    if model_type == "siglip2":
        raise ModelError("config.json: SigLIP 2's NaFlex variant is not supported; take one of a fixed picture size")
    if isinstance(model_type, str) and model_type in SUPPORTED:
        use = "tercet generate, chat and eval --text are for it"
        raise ModelError(f"config.json: {model_type} is a language model, without pictures; {use}")
    if not isinstance(model_type, str) or model_type not in _TOWERS:
        raise settings.error("model_type", "a supported one: " + ", ".join(SUPPORTED_TOWERS))
    _, defaults, make, architecture = _TOWERS[model_type]
    _refuse(settings, "config.json")
    for part in ("text_config", "vision_config"):
        _refuse(Settings(settings.part(part), {}), f"config.json: {part}")
    if settings.raw("tercet") is not None:
        raise settings.error("tercet", "absent: the linears of towers are neither rotated nor clipped")
    _check_architectures(settings, architecture, architecture)
    return make(Settings(config, defaults))


def _refuse(settings: Settings, where: str) -> None:
    for key, reason in _REFUSED.items():
        if settings.raw(key):
            raise ModelError(f"{where}: {key} is set, but {reason}")


def _check_architectures(settings: Settings, ending: str, wanted: str) -> None:
    names = settings.raw("architectures")
    if names is None or names == []:
        return
    if not isinstance(names, list) or not any(isinstance(name, str) and name.endswith(ending) for name in names):
        raise settings.error("architectures", wanted)
