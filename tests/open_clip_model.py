"""open_clip's CLIP in plain torch, with open_clip's names and defaults: the package itself wants torchvision.

After model.py and transformer.py of open_clip 3: CLIP, VisionTransformer (pool_type "tok"), TextTransformer,
text_global_pool. `prefix` is "text." for its CustomTextCLIP.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

import tiny
import tiny_towers

__all__ = ["Clip", "model", "save_folder"]

VISION = {"layers": 2, "width": 64, "head_width": 16, "mlp_ratio": 2.25, "patch_size": 8, "image_size": 28}
TEXT = {"layers": 2, "width": 48, "heads": 4, "context_length": 14, "vocab_size": 99}


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, act: Any, norm: Any) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = norm(width), norm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        layers = {"c_fc": nn.Linear(width, inner), "gelu": act(), "c_proj": nn.Linear(inner, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, ratio: float, act: Any, norm: Any) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, int(width * ratio), act, norm) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, cfg: dict[str, Any], dim: int, act: Any, norm: Any) -> None:
        super().__init__()
        width, patch = cfg["width"], cfg["patch_size"]
        positions = (cfg["image_size"] // patch) ** 2 + 1
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, width))
        self.ln_pre, self.ln_post = norm(width), norm(width)
        heads = width // cfg["head_width"]
        self.transformer = Transformer(width, heads, cfg["layers"], cfg["mlp_ratio"], act, norm)
        self.proj = nn.Parameter(torch.empty(width, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Text(nn.Module):
    def __init__(self, cfg: dict[str, Any], dim: int, act: Any, norm: Any) -> None:
        super().__init__()
        self.cfg, width = cfg, cfg["width"]
        self.token_embedding = nn.Embedding(cfg["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(cfg["context_length"], width))
        self.transformer = Transformer(width, cfg["heads"], cfg["layers"], cfg.get("mlp_ratio", 4.0), act, norm)
        self.ln_final = norm(width)
        biased = cfg.get("proj_bias", False)
        self.text_projection = nn.Linear(width, dim) if biased else nn.Parameter(torch.empty(width, dim))

    def forward(self, ids: Tensor) -> Tensor:
        length = ids.shape[1]
        mask = None if self.cfg.get("no_causal_mask") else torch.full((length, length), -torch.inf).triu(1)
        x = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding[:length], mask))
        pool = self.cfg.get("pool_type", "argmax")
        rows = {"first": torch.zeros(len(ids)), "last": torch.full((len(ids),), length - 1), "argmax": ids.argmax(1)}
        row = (ids == self.cfg["eos_id"]).int().argmax(1) if pool == "eos" else rows[pool].long()
        pooled = x[torch.arange(len(ids)), row]
        return self.text_projection(pooled) if self.cfg.get("proj_bias") else pooled @ self.text_projection


class Clip(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for kind, name in ((Visual, "vision_cfg"), (Text, "text_cfg")):
            cfg = config[name]
            act = partial(QuickGELU if config.get("quick_gelu") else nn.GELU, **cfg.get("act_kwargs", {}))
            parts.append(kind(cfg, config["embed_dim"], act, partial(nn.LayerNorm, **cfg.get("norm_kwargs", {}))))
        self.visual, self.text = parts
        self.logit_scale = nn.Parameter(torch.empty([]))
        if "init_logit_bias" in config:
            self.logit_bias = nn.Parameter(torch.empty([]))


def model(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **top: Any) -> Any:
    """The model with random weights, float32 and eval, and its model_cfg."""
    config = {"embed_dim": 40, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}, **top}
    made = Clip(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            likened = name.replace("c_fc", "fc1").replace("c_proj", "fc2").replace("conv1", "patch")
            parameter.copy_(tiny_towers.draw(likened, parameter, generator))
    return made.eval(), config


def save_folder(path: Path, made: Clip, config: dict[str, Any], *, prefix: str = "") -> Path:
    """As open_clip pushes it to the hub, with a tokenizer; returns `path`."""
    path.mkdir(parents=True)
    state = {name.replace("text.", prefix, 1): value.contiguous() for name, value in made.state_dict().items()}
    save_file(state, path / "open_clip_model.safetensors")
    settings = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}}
    (path / "open_clip_config.json").write_text(json.dumps(settings))
    tiny.tokenizer().save(str(path / "tokenizer.json"))
    return path


def embeddings(made: Clip, pixels: NDArray[np.float32], ids: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    with torch.no_grad():
        return [made.visual(torch.from_numpy(pixels)).numpy(), made.text(torch.from_numpy(ids)).numpy()]
