"""Where models come from; importing this imports no torch."""

from tercet.sources.folder import Source
from tercet.sources.locate import resolve

__all__ = ["Source", "resolve"]
