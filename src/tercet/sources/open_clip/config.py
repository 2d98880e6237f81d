"""open_clip_config.json in transformers' words, as a config of model_type clip; and how it prepares pictures.

Image towers are the ViTs of open_clip's own, with a class row; those of timm, ResNets and texts read by a Hugging Face
model are refused. Texts may be read in both directions, taken at any row that `tercet.families.clip` knows, projected
with a bias; logits may have one. The words for that in the config are ours: transformers has no such CLIP.

Pictures keep open_clip's own words, which `tercet.runtime.pictures.preprocess` reads: transformers rounds margins
otherwise, and lays transparency on white.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tercet.errors import ModelError
from tercet.families.settings import Settings

__all__ = ["CONFIG", "WEIGHTS", "captions", "config", "preprocessor"]

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")

VISION = {
    "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224,
    "pool_type": "tok",
}  # fmt: skip
TEXT = {
    "layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "context_length": 77, "vocab_size": 49408,
    "pool_type": "argmax", "proj_type": "linear", "text_arch": "clip",
}  # fmt: skip
BLOCKS = ("ls_init_value", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")
REFUSED_VISION = ("attentional_pool", "no_ln_pre", *BLOCKS)
REFUSED_TEXT = ("embed_cls", *BLOCKS)
PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
POOLS = {"argmax": "end", "eos": "end", "first": "first", "last": "last"}


def config(given: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a CLIP as `tercet.families` reads it, from what open_clip_config.json holds.

    Raises ModelError where a value is impossible or something is set that is not built.
    """
    model = _model(given)
    vision = Settings(model.part("vision_cfg"), VISION, f"{CONFIG}: vision_cfg")
    text = Settings(model.part("text_cfg"), TEXT, f"{CONFIG}: text_cfg")
    quick = model.flag("quick_gelu")
    return {
        "model_type": "clip",
        "projection_dim": model.integer("embed_dim", 1, 1 << 17),
        "vision_config": _vision(vision, quick),
        "text_config": _text(text, quick),
        "logit_bias": model.raw("init_logit_bias") is not None,
    }


def _model(given: Mapping[str, Any]) -> Settings:
    """`model_cfg`, which files of open_clip's own source have at the top."""
    top = Settings(given, {}, CONFIG)
    model = top if top.raw("model_cfg") is None else Settings(top.part("model_cfg"), {}, f"{CONFIG}: model_cfg")
    for key in ("multimodal_cfg", "audio_cfg"):
        if model.raw(key):
            raise model.error(key, "absent: models with more than two towers are not supported")
    return model


def _vision(own: Settings, quick: bool) -> dict[str, Any]:
    if own.raw("timm_model_name"):
        raise ModelError(
            f"{CONFIG}: vision_cfg: image towers of timm are not supported; "
            "take the transformers checkpoint of the same model, where there is one"
        )
    if isinstance(own.raw("layers"), list):
        raise ModelError(f"{CONFIG}: vision_cfg: the image tower is a ResNet; only vision transformers are supported")
    _refuse(own, REFUSED_VISION)
    own.choice("pool_type", {"tok": None})
    width, head = own.integer("width", 2, 1 << 17), own.integer("head_width", 1, 1024)
    if width % head:
        raise own.error("head_width", f"a divisor of width ({width})")
    size = own.raw("image_size")
    square = size[0] if isinstance(size, list) and len(size) == 2 and size[0] == size[1] else size
    return {**_blocks(own, width, width // head, quick), "image_size": square, "patch_size": own.raw("patch_size")}


def _text(own: Settings, quick: bool) -> dict[str, Any]:
    if own.raw("hf_model_name"):
        raise ModelError(f"{CONFIG}: text_cfg: a Hugging Face model reads the texts; only open_clip's own is supported")
    _refuse(own, REFUSED_TEXT)
    own.choice("text_arch", {"clip": None})
    own.choice("proj_type", {"linear": None})
    pool = own.choice("pool_type", POOLS)
    width, heads = own.integer("width", 2, 1 << 17), own.integer("heads", 1, 1024)
    return {
        **_blocks(own, width, heads, quick),
        "vocab_size": own.raw("vocab_size"),
        "max_position_embeddings": own.raw("context_length"),
        "eos_token_id": _end(own),
        "pool": pool,
        "causal": not own.flag("no_causal_mask"),
        "projection_bias": own.flag("proj_bias"),
    }


def _end(own: Settings) -> int:
    """2 stands for the largest id of a text in transformers' configs, so it cannot stand for itself."""
    if own.raw("pool_type") != "eos":
        return 2
    token = own.integer("eos_id", 0, 1 << 22)
    if token == 2:
        raise own.error("eos_id", "another id: texts that end with 2 are not supported")
    return token


def _blocks(own: Settings, width: int, heads: int, quick: bool) -> dict[str, Any]:
    acts = Settings(own.part("act_kwargs"), {"approximate": "none"}, f"{CONFIG}: act_kwargs")
    norms = Settings(own.part("norm_kwargs"), {"eps": 1e-5}, f"{CONFIG}: norm_kwargs")
    gelu = acts.choice("approximate", {"none": "gelu", "tanh": "gelu_pytorch_tanh"})
    if quick and gelu != "gelu":
        raise acts.error("approximate", "absent where quick_gelu is set")
    return {
        "hidden_size": width,
        "intermediate_size": int(width * own.number("mlp_ratio", 1e-3, 64)),
        "num_hidden_layers": own.raw("layers"),
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu" if quick else gelu,
        "layer_norm_eps": norms.number("eps", 0, 1),
    }


def _refuse(own: Settings, keys: tuple[str, ...]) -> None:
    for key in keys:
        if own.raw(key) not in (None, False):
            raise own.error(key, "absent: it is not supported")


def captions(given: Mapping[str, Any]) -> dict[str, Any]:
    """How texts are cleaned and filled, as `tercet.runtime.pictures.captions` reads it. Raises ModelError.

    open_clip's own tokenizer lowers the case and fills with token 0; one of Hugging Face's does as its own files say.
    """
    text = Settings(_model(given).part("text_cfg"), {}, f"{CONFIG}: text_cfg")
    own = text.raw("hf_tokenizer_name") is None
    arguments = text.part("tokenizer_kwargs")
    settings = Settings(arguments, {"clean": "lower" if own else "whitespace"}, f"{CONFIG}: tokenizer_kwargs")
    for key in arguments.keys() - {"clean"}:
        raise settings.error(key, "absent: it is not supported")
    clean = settings.choice("clean", {kind: kind for kind in ("whitespace", "lower", "canonicalize")})
    return {"clean": clean, "pad_token_id": 0} if own else {"clean": clean}


def preprocessor(given: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """preprocess_cfg with what it leaves out; the size is the tower's, as in open_clip. Raises ModelError."""
    own = Settings(Settings(given, {}, CONFIG).part("preprocess_cfg"), PREPROCESS, f"{CONFIG}: preprocess_cfg")
    return {
        "size": image_size,
        "mean": own.numbers("mean", 3, -10, 10),
        "std": own.numbers("std", 3, 1e-3, 10),
        "interpolation": own.choice(
            "interpolation", {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
        ),
        "resize_mode": own.choice("resize_mode", {mode: mode for mode in ("shortest", "longest", "squash")}),
        "fill_color": own.integer("fill_color", 0, 255),
    }
