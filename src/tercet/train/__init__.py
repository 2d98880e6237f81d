"""Training: a student with quantizers on it, distilled from the model it was, by a loop that nothing can tear.

`TextTask` is student, teacher and losses of a language model, `PairTask` those of an image-text model; `train` runs a
task over windows of tokens into a folder of checkpoints and a journal; `curves` draws the journal; `fine_tune` trains
low-rank adapters and merges them.
"""

from tercet.train.curves import curves
from tercet.train.journal import read_journal
from tercet.train.loop import Evaluation, Record, Result, train
from tercet.train.lora import add_lora, fine_tune, merge_lora
from tercet.train.state import load_weights
from tercet.train.tasks.pair import PairTask
from tercet.train.tasks.text import TextTask

__all__ = [
    "Evaluation",
    "PairTask",
    "Record",
    "Result",
    "TextTask",
    "add_lora",
    "curves",
    "fine_tune",
    "load_weights",
    "merge_lora",
    "read_journal",
    "train",
]
