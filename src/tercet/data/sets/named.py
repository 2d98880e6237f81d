"""The 41 datasets of CLIP-benchmark's lists, by name: task, metric, where to get them, where they are looked for.

named.json is the union of CLIP-benchmark's dataset_type.csv and webdatasets.txt, 41 sets; TernaryCLIP reports on "41
commonly used datasets" by the same names. The metric is the one that papers give since Radford et al. 2021: the mean
per class for Caltech-101, Flowers-102, Pets and FGVC Aircraft, average precision where a picture has several classes.

Class names and prompts come from the set's own classnames.txt and zeroshot_classification_templates.txt, else out of
the package clip-benchmark: its JSON files are read where it is installed. It is never imported, for it wants
torchvision.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tercet.data.sets.sample import Metric, Task
from tercet.errors import FormatError
from tercet.sources.cache import cache_dir

__all__ = ["NAMED", "Named", "classes_of", "place_of", "templates_of"]


@dataclass(frozen=True)
class Named:
    """A line of named.json.

    Attributes:
        classes, templates: the key in clip-benchmark's files; None where the names are not in them.
        download: the dataset's name on the Hugging Face hub.
    """

    name: str
    task: Task
    metric: Metric
    download: str
    classes: str | None = None
    templates: str | None = None


def _read() -> dict[str, Named]:
    rows = json.loads(Path(__file__).with_name("named.json").read_text(encoding="utf-8"))
    return {row["name"]: Named(**row) for row in rows}


NAMED = _read()


def place_of(named: Named) -> Path:
    """The folder of a set. Raises FormatError, which says how to get it, where it is not there."""
    folder = os.environ.get("TERCET_DATASETS")
    place = (Path(folder) if folder else cache_dir() / "datasets") / named.name
    if not place.is_dir():
        how = f"hf download {named.download} --repo-type dataset --local-dir {place}"
        raise FormatError(f"{named.name}: not in {place}; get it: {how} (or put class folders or tars there)")
    return place


def classes_of(named: Named) -> tuple[str, ...]:
    """Its class names, from clip-benchmark's files. Raises FormatError."""
    names = _texts("en_classnames.json").get(named.classes) if named.classes else None
    if not names:
        raise FormatError(
            f"{named.name}: no classnames.txt, and clip-benchmark does not name its classes; add the file"
        )
    return tuple(names)


def templates_of(named: Named) -> tuple[str, ...]:
    """Its prompts, from clip-benchmark's files. Raises FormatError."""
    prompts = _texts("en_zeroshot_classification_templates.json").get(named.templates) if named.templates else None
    if not isinstance(prompts, list) or not prompts:
        raise FormatError(
            f"{named.name}: clip-benchmark has no prompts for it; add zeroshot_classification_templates.txt"
        )
    return tuple(prompts)


@cache
def _texts(name: str) -> dict[str, Any]:
    spec = find_spec("clip_benchmark")  # a top-level name is located without running anything of it
    for place in (spec.submodule_search_locations or []) if spec else []:
        path = Path(place, "datasets", name)
        if path.is_file():
            made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return made
    raise FormatError("class names and prompts are clip-benchmark's; pip install --no-deps clip-benchmark")
