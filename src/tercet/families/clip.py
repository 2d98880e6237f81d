"""CLIP: a class row stands for the picture, the row at the end of the text for the text, which is read causally.

Where the end of the text is, transformers decides by eos_token_id: at the first token of that id; but 2, which older
configs hold by mistake, means the largest id of the text, as OpenAI's own code has it.

open_clip has CLIPs that transformers has not. They are said by words of ours, absent in transformers' configs (see
`tercet.sources.open_clip.config`): text_config.causal, text_config.pool "end", "first" or "last",
text_config.projection_bias, and logit_bias.
"""

from __future__ import annotations

from typing import Any

from tercet.families.family import Family
from tercet.families.settings import Settings
from tercet.families.tower import Head, TowerSpec, pair, read_layers, read_patches, read_tokens
from tercet.program import Model, Row

__all__ = ["FAMILY"]

LAYERS = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT = {
    **LAYERS,
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "causal": True,
    "pool": "end",
}
VISION = {
    **LAYERS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
DEFAULTS = {"projection_dim": 512}
UNUSED = ("projection_dim",)  # of a tower; the model's own counts
POOLS: dict[str, Row] = {"end": "end", "first": "first", "last": "last"}


def make(config: Settings) -> Model:
    text, vision = _part(config, "text", TEXT), _part(config, "vision", VISION)
    dim = config.integer("projection_dim", 1, 1 << 17)
    patches, picture = read_patches(vision, biased=False, class_row=True)
    image_tower = TowerSpec(
        family="clip",
        name="vision_model",
        layers=read_layers(vision),
        input=patches,
        head=Head("vision_model.post_layernorm", dim, row="first", projection="visual_projection"),
        first_norm="vision_model.pre_layrnorm",  # transformers' own spelling
    )
    tokens = read_tokens(text)
    row = text.choice("pool", POOLS)
    text_tower = TowerSpec(
        family="clip",
        name="text_model",
        layers=read_layers(text),
        input=tokens,
        head=Head(
            "text_model.final_layer_norm",
            dim,
            row=row,
            token=_end(text, tokens.vocab) if row == "end" else -1,
            projection="text_projection",
            biased=text.flag("projection_bias"),
        ),
        causal=text.flag("causal"),
    )
    bias = "logit_bias" if config.flag("logit_bias") else ""
    return pair(config, image_tower, text_tower, picture, bias)


def _end(text: Settings, vocab: int) -> int:
    token = text.integer("eos_token_id", 0, max(2, vocab - 1))
    return -1 if token == 2 else token


def _part(config: Settings, tower: str, defaults: dict[str, Any]) -> Settings:
    """A tower's config; of the older text_config_dict and vision_config_dict the values win, defaults included."""
    values = config.part(f"{tower}_config")
    if config.raw(f"{tower}_config_dict") is not None:
        values |= {**defaults, **config.part(f"{tower}_config_dict")}
    return config.within(values, defaults, f"{tower}_config", UNUSED)


FAMILY = Family("CLIP", make, "CLIPModel", DEFAULTS, ("text_config", "vision_config"))
