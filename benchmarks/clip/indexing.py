"""Indexing and searching 10,000 small pictures with the command line, timed.

    PYTHONPATH=src python benchmarks/clip/indexing.py [-m DIR|SOURCE] [--json FILE]

The pictures are Fashion-MNIST's test pictures, one PNG each; the model is packed (`tercet demo clip` leaves one in
demo-clip/models/q_all). A process for each command, as a person would run them: start-up is in the times.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from tercet import fsio
from tercet.data.pictures import fashion_mnist
from tercet.evaluate.machine import machine

QUERIES = ("a photo of a sneaker.", "a photo of a bag.", "a photo of a dress.")


def write(folder: Path) -> int:
    """Every test picture in folders of a thousand; how many."""
    pixels = fashion_mnist.pictures("test").pixels
    for index, each in enumerate(pixels):
        place = folder / f"{index // 1000}" / f"{index}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(place)
    return len(pixels)


def timed(*command: str) -> tuple[float, Any]:
    """Seconds of a tercet command, and what it printed."""
    since = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "tercet", *command, "--json"], capture_output=True, check=True)
    return time.monotonic() - since, json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-m", "--model", default="demo-clip/models/q_all")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, index = Path(folder) / "pictures", str(Path(folder) / "index")
        count = write(place)
        first, made = timed("index", str(place), "-m", asked.model, "-o", index)
        again, kept = timed("index", str(place), "-m", asked.model, "-o", index)
        searches = [timed("search", index, query)[0] for query in QUERIES]
    assert made["added"] == kept["kept"] == count, (made, kept)
    result = {
        "command": " ".join(["python benchmarks/clip/indexing.py", "-m", Path(asked.model).name]),
        "pictures": count,
        "index_s": first,
        "index_again_s": again,
        "search_s": sorted(searches)[len(searches) // 2],
        "peak_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    print(json.dumps(result, indent=1))
    if asked.json:
        fsio.atomic_file(asked.json, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
