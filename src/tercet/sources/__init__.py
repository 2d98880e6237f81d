"""Where models and texts come from; importing this imports no torch."""

from tercet.sources.folder import Source
from tercet.sources.locate import resolve
from tercet.sources.text import default_text, fetch_default_text, generated_text

__all__ = ["Source", "default_text", "fetch_default_text", "generated_text", "resolve"]
