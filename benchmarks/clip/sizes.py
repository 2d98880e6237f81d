"""What real CLIPs weigh: ViT-B/16 and ViT-L/14 with random weights, packed by each recipe in t19 and t5.

    PYTHONPATH=src python benchmarks/clip/sizes.py [--json FILE]

Sizes and shares do not depend on the values, so nothing is trained and no checkpoint is needed. The folder is written
and read again: MB (10^6 bytes) are those of model.safetensors and config.json, and every scale, padding, norm and bias
is in them; the tokenizer is not, on neither side. Weights are rounded by absmean2, the quickest rule.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tercet import artifact, families
from tercet.calibrate import rounded
from tercet.evaluate.contents import contents
from tercet.evaluate.machine import machine
from tercet.packing import pack
from tercet.program import Model
from tercet.recipe import Recipe

RECIPES = ("clip-q-ffn", "clip-q-all", "clip-q-all-e")
FORMATS = ("t19", "t5")


def config(width: int, layers: int, patch: int, text: int) -> dict[str, Any]:
    """OpenAI's shapes: heads of 64 columns, MLPs four times as wide, 77 tokens of 49,408."""
    vision = {"hidden_size": width, "num_hidden_layers": layers, "patch_size": patch}
    return {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "projection_dim": text,
        "text_config": {"hidden_size": text, "intermediate_size": 4 * text, "num_attention_heads": text // 64},
        "vision_config": {**vision, "intermediate_size": 4 * width, "num_attention_heads": width // 64},
    }


MODELS = {"ViT-B/16": config(768, 12, 16, 512), "ViT-L/14": config(1024, 24, 14, 768)}


class Random(Mapping[str, NDArray[np.float32]]):
    """Each tensor drawn when it is asked for: the same each time, and never all in memory."""

    def __init__(self, towers: Model) -> None:
        self.weights = towers.weights

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return rng.standard_normal(self.weights[name].shape, np.float32) * np.float32(0.02)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


def recipe(name: str, format: str) -> Recipe:
    """The shipped recipe, but rounded by absmean2 and stored in `format`."""
    fields = Recipe.load(name).model_dump(mode="json") | {"format": format, "calibrate": None}
    for rule in fields["rules"]:
        if rule["quantizer"]:
            rule["quantizer"] = {"name": "absmean2"}
    return Recipe.parse({**fields, "distil": None, "train": None})


def measured(model: Mapping[str, Any], name: str, format: str, folder: Path) -> dict[str, Any]:
    """Writes a folder, and says what is in it."""
    towers = families.model(model)
    tensors, chosen = Random(towers), recipe(name, format)
    plan = chosen.plan(towers)
    packed = {
        each: pack(rounded(tensors[each], plan[each]), plan[each].format) if each in plan else tensors[each]
        for each in towers.weights
    }
    artifact.save(
        folder,
        model=dict(model),
        tensors=packed,
        tokenizer_files={},
        recipe=chosen.model_dump(mode="json"),
        card="random weights\n",
        generation={},
        source={"random": True},
        calibration={},
    )
    inside = contents(folder)
    size = sum((folder / each).stat().st_size for each in ("model.safetensors", "config.json")) / 1e6
    weights = sum(tensor.weights for tensor in inside.tensors)
    return {
        "recipe": name,
        "format": format,
        "weights": weights,
        "float32_mb": 4 * weights / 1e6,
        "file_mb": size,
        "smaller": 4 * weights / 1e6 / size,
        "bits_per_weight": 8e6 * size / weights,
        "bits_per_ternary_weight": inside.bits_per_ternary_weight,
        "ternary_share": inside.ternary_share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    asked, rows = parser.parse_args(), []
    print("| model | recipe | format | ternary | MB | of float32 | bits/weight | bits/ternary weight |")
    print("|---|---|---|--:|--:|--:|--:|--:|")
    for title, model in MODELS.items():
        for name in RECIPES:
            for format in FORMATS:
                with tempfile.TemporaryDirectory() as folder:
                    row = {"model": title, **measured(model, name, format, Path(folder) / "packed")}
                rows.append(row)
                facts = f"{row['ternary_share']:.1%} | {row['file_mb']:.1f} | 1/{row['smaller']:.2f}"
                bits = f"{row['bits_per_weight']:.2f} | {row['bits_per_ternary_weight']:.3f}"
                print(f"| {title} | {name} | {format} | {facts} | {bits} |", flush=True)
    if asked.json:
        about = {"command": "python benchmarks/clip/sizes.py", "date": time.strftime("%Y-%m-%d"), "machine": machine()}
        asked.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
