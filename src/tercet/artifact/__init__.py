"""The model folder: safetensors, config.json, tokenizer, recipe and card (docs/format.md, "File").

`save` writes it in one step; `Artifact.open` reads it without trust, by mmap; any file of a model folder, a source's
too, is opened by `ModelFolder`. `read_header` checks any safetensors file
without touching its data; `write_safetensors` writes one.
"""

from tercet.artifact.folder import ModelFolder
from tercet.artifact.header import NO_FILE, POINTER, Entry, open_regular, read_header, write_safetensors
from tercet.artifact.reader import CONFIG, WEIGHTS, Artifact, checksum
from tercet.artifact.sums import SUMS, written
from tercet.artifact.writer import RECIPE, is_artifact, save

__all__ = [
    "CONFIG",
    "NO_FILE",
    "POINTER",
    "RECIPE",
    "SUMS",
    "WEIGHTS",
    "Artifact",
    "Entry",
    "ModelFolder",
    "checksum",
    "is_artifact",
    "open_regular",
    "read_header",
    "save",
    "write_safetensors",
    "written",
]
