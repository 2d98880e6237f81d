"""Methods compared: `compare_methods` makes and measures a list of `Entry` on one source, into one table."""

from tercet.pipeline.comparison.entry import Entry
from tercet.pipeline.comparison.run import compare_methods

__all__ = ["Entry", "compare_methods"]
