"""A CLIP of transformers, as small as three data sets of 32 by 32 pixels allow: 1.5 million parameters.

Patches of 8 by 8: an image tower of 17 tokens, a quarter of the work that patches of 4 are. Their 192 numbers go
into 128 channels, so little is lost at the door.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

__all__ = ["PREPROCESSOR", "SIDE", "make", "write"]

SIDE = 32
WIDTH = 128
PREPROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,  # bicubic
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def make(vocabulary: int, context: int, seed: int) -> CLIPModel:
    """A new model: 4 image blocks and 2 text blocks of width 128, 4 heads, GELU."""
    torch.manual_seed(seed)
    common = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
        "hidden_act": "gelu",
    }
    end = vocabulary - 1
    text = {
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "num_hidden_layers": 2,
        "bos_token_id": end - 1,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {"image_size": SIDE, "patch_size": 8, "num_hidden_layers": 4}
    return CLIPModel(
        CLIPConfig(text_config={**common, **text}, vision_config={**common, **vision}, projection_dim=WIDTH)
    )


def write(model: CLIPModel, folder: Path) -> None:
    """config.json, model.safetensors in float16, preprocessor_config.json."""
    half = CLIPModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=2) + "\n", encoding="utf-8")
