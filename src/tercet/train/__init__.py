"""Training: a student with quantizers on it, distilled from the model it was, by a loop that nothing can tear.

`Task` is student, teacher and losses, `ClipTask` those of a model of pictures and texts; `train` runs a task over
windows of tokens into a folder of checkpoints and a journal; `curves` draws the journal; `fine_tune` trains low-rank
adapters and merges them.
"""

from tercet.modules.module import TowersModule
from tercet.train.curves import curves
from tercet.train.journal import read_journal
from tercet.train.loop import Evaluation, Record, Result, train
from tercet.train.lora import add_lora, fine_tune, merge_lora
from tercet.train.state import load_weights
from tercet.train.tasks.pair import ClipTask
from tercet.train.tasks.text import Task

__all__ = [
    "ClipTask",
    "Evaluation",
    "Record",
    "Result",
    "Task",
    "TowersModule",
    "add_lora",
    "curves",
    "fine_tune",
    "load_weights",
    "merge_lora",
    "read_journal",
    "train",
]
