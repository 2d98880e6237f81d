"""What models are calibrated, trained and measured on: texts, captioned pictures, labelled sets. Imports no torch."""

from tercet.data.kinds import KINDS, default_texts
from tercet.data.text import default_text, fetch_default_text, generated_text
from tercet.data.windows import spread, windows

__all__ = ["KINDS", "default_text", "default_texts", "fetch_default_text", "generated_text", "spread", "windows"]
