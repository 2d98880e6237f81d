"""Every quantizer on SmolLM2-135M in one table: rounded alone, and as the start of calibration.

    python benchmarks/quantizers.py [--out DIR] [--tokens N]

Perplexity, KL and top-1 agreement on the same 4,096 tokens of the test split, all packed models by the engine; beside
it, k-means' relative error by iteration (Crulis et al., Figure 2). Writes benchmarks/results/quantizers.json, of which
`make docs` makes docs/quantizers.md. Folders are kept in DIR, so a second run only measures.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tercet import data, sources
from tercet.compare.lloyd import kmeans_errors
from tercet.data import spread, windows
from tercet.demo.text import EVALUATE
from tercet.evaluate import compare
from tercet.evaluate.contents import contents
from tercet.evaluate.machine import machine
from tercet.evaluate.models import EngineModel
from tercet.evaluate.originals import FloatModel
from tercet.pipeline import Data, quantize
from tercet.recipe import Calibrate, Recipe
from tercet.runtime import Engine, Tokenizer

RESULTS = Path(__file__).parent / "results" / "quantizers.json"
ROUNDED = ("absmean", "absmean2", "twn", "kmeans", "l2", "itf", "binary")
CALIBRATED = ("l2", "kmeans", "itf", "binary")


def recipe(quantizer: str, calibrate: Calibrate | None) -> Recipe:
    settings = calibrate.model_dump() if calibrate else None
    return Recipe.parse({"name": quantizer, "rules": [{"quantizer": quantizer}], "calibrate": settings})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("out/quantizers"))
    parser.add_argument("--tokens", type=int, default=Calibrate().tokens, help="of calibration")
    options = parser.parse_args()
    source = sources.resolve("smollm2")
    wanted = {f"{name}, rounded": recipe(name, None) for name in ROUNDED}
    settings = Calibrate(tokens=options.tokens)
    wanted |= {f"{name}, calibrated": recipe(name, settings) for name in CALIBRATED}
    folders = {name: options.out / name.replace(", ", "-") for name in wanted}
    for name, folder in folders.items():
        print(name, file=sys.stderr, flush=True)
        if not folder.exists():
            quantize(source, folder, wanted[name], Data(examine=False))
    text = data.default_text("test")
    assert text is not None, "the default text cannot be had"
    cut = spread(windows(Tokenizer.open(source.folder).encode(text), EVALUATE.context), EVALUATE.tokens)
    original = FloatModel(source.pretrained())
    engines = {name: EngineModel(Engine.open(folder)) for name, folder in folders.items()}
    found = compare({"original": original, **engines}, cut, original)
    bits: dict[str, Any] = {name: contents(folder) for name, folder in folders.items()}
    result = {
        "command": f"python benchmarks/quantizers.py --tokens {options.tokens}",
        "calibration_tokens": options.tokens,
        "rows": [
            {
                "name": name,
                **quality.as_dict(),
                "bits_per_ternary_weight": bits[name].bits_per_ternary_weight if name in bits else None,
                "zero_share": bits[name].zero_share if name in bits else None,
            }
            for name, quality in found.items()
        ],
        "kmeans_relative_error": kmeans_errors(source),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {RESULTS}")


if __name__ == "__main__":
    main()
