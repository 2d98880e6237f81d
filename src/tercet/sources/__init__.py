"""Where models and texts come from; importing this imports no torch."""

from tercet.sources.folder import Source
from tercet.sources.resolve import resolve
from tercet.sources.text import default_text, fetch_default_text, generated_text

__all__ = ["Source", "default_text", "fetch_default_text", "generated_text", "resolve"]
