"""Methods compared: `compare_methods` makes and measures a list of `Entry` on one source, into one table."""

from tercet.compare.entry import Entry
from tercet.compare.run import compare_methods
from tercet.compare.settings import Settings

__all__ = ["Entry", "Settings", "compare_methods"]
