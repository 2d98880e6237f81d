"""The model folder: safetensors, config.json, tokenizer, recipe and card (docs/format.md, "File").

`save` writes it in one step; `Artifact.open` reads it without trust, by mmap. `read_header` checks any safetensors file
without touching its data; `write_safetensors` writes one.
"""

from tercet.artifact.header import Entry, open_regular, read_header, write_safetensors
from tercet.artifact.reader import Artifact, inside
from tercet.artifact.writer import is_artifact, save

__all__ = ["Artifact", "Entry", "inside", "is_artifact", "open_regular", "read_header", "save", "write_safetensors"]
