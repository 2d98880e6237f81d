"""Running a packed model: text to text, pictures and captions to embeddings. Imports no torch."""

from tercet.runtime.pictures.embedder import Embedder
from tercet.runtime.residency import Memory, measure
from tercet.runtime.text.batch import Batch
from tercet.runtime.text.chat import render
from tercet.runtime.text.engine import Engine
from tercet.runtime.text.generation import Generation
from tercet.runtime.text.given import GivenRows
from tercet.runtime.text.sampling import Sampling
from tercet.runtime.text.sequence import Sequence
from tercet.runtime.text.streaming import StreamDecoder
from tercet.runtime.text.tokenizer import Tokenizer

__all__ = [
    "Batch",
    "Embedder",
    "Engine",
    "Generation",
    "GivenRows",
    "Memory",
    "Sampling",
    "Sequence",
    "StreamDecoder",
    "Tokenizer",
    "measure",
    "render",
]
