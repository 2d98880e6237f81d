"""Running a packed model: ids to logits, text to text. Imports no torch."""

from tercet.runtime.batch import Batch
from tercet.runtime.chat import render
from tercet.runtime.engine import Engine, Sequence
from tercet.runtime.generation import Generation
from tercet.runtime.memory import Memory, measure
from tercet.runtime.sampling import Sampling
from tercet.runtime.tokenizer import StreamDecoder, Tokenizer

__all__ = [
    "Batch",
    "Engine",
    "Generation",
    "Memory",
    "Sampling",
    "Sequence",
    "StreamDecoder",
    "Tokenizer",
    "measure",
    "render",
]
