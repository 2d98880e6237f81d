"""Pictures with classes or captions, from whatever a user has: class folders, a table, webdataset tars, or a name.

A `PictureSet` is read as it is used, one sample after another, and may be read again; nothing of it is kept in memory
but names and labels, and nothing is ever unpacked to disk.
"""

from tercet.data.sets.named import NAMED, Named
from tercet.data.sets.opening import open_set
from tercet.data.sets.sample import PictureSet, Sample, Task

__all__ = ["NAMED", "Named", "PictureSet", "Sample", "Task", "open_set"]
