"""SigLIP, and SigLIP 2 of a fixed picture size, which is the same model: texts are read in both directions and taken at
their last token, padding or not; pictures are pooled by attention; logits have a bias.

What transformers calls siglip2 is the NaFlex variant, which is not built: pictures of any shape, positions resized to
match.
"""

from __future__ import annotations

from tercet.families.family import Family
from tercet.families.settings import Settings
from tercet.families.tower import Head, TowerSpec, pair, read_layers, read_patches, read_tokens
from tercet.program import Model

__all__ = ["FAMILY"]

LAYERS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
TEXT = {**LAYERS, "vocab_size": 32000, "max_position_embeddings": 64}
VISION = {**LAYERS, "num_channels": 3, "image_size": 224, "patch_size": 16, "vision_use_head": True}


def make(config: Settings) -> Model:
    text = config.within(config.part("text_config"), TEXT, "text_config")
    vision = config.within(config.part("vision_config"), VISION, "vision_config")
    if not vision.flag("vision_use_head"):
        raise vision.error("vision_use_head", "true: without the pooling head pictures have no embeddings")
    words, pixels = read_layers(text), read_layers(vision)
    dim = words.width if text.raw("projection_size") is None else text.integer("projection_size", 1, 1 << 17)
    if dim != pixels.width:
        raise text.error("projection_size", f"the pictures' hidden_size ({pixels.width})")
    patches, picture = read_patches(vision, biased=True, class_row=False)
    image_tower = TowerSpec(
        family="siglip",
        name="vision_model",
        layers=pixels,
        input=patches,
        head=Head("vision_model.post_layernorm", dim, pooled=True),
    )
    text_tower = TowerSpec(
        family="siglip",
        name="text_model",
        layers=words,
        input=read_tokens(text),
        head=Head("text_model.final_layer_norm", dim, row="last", projection="text_model.head", biased=True),
    )
    return pair(config, image_tower, text_tower, picture, "logit_bias")


TITLE = "SigLIP, and SigLIP 2 of a fixed picture size"
FAMILY = Family(TITLE, make, "SiglipModel", {}, ("text_config", "vision_config"))
